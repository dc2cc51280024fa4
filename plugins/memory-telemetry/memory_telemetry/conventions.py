"""How operations of a memory are named in OpenTelemetry's semantic conventions.

Attributes of databases come from ``opentelemetry.semconv``. Those of GenAI memory are not in it yet (0.66b2):
they stand here as the conventions have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit
from uuid import UUID

from opentelemetry.semconv.attributes.db_attributes import (
    DB_COLLECTION_NAME,
    DB_NAMESPACE,
    DB_OPERATION_NAME,
    DB_SYSTEM_NAME,
)
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT

from memory_core import Record
from memory_core.metrics import Call

__all__ = [
    "GEN_AI_MEMORY_CONTENT",
    "GEN_AI_MEMORY_RECORD_ID",
    "GEN_AI_MEMORY_STORE_ID",
    "GEN_AI_OPERATION_NAME",
    "GEN_AI_QUERY_TEXT",
    "OPERATIONS",
    "database_attributes",
    "memory_attributes",
]

GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_MEMORY_STORE_ID = "gen_ai.memory.store.id"
GEN_AI_MEMORY_RECORD_ID = "gen_ai.memory.record.id"
GEN_AI_QUERY_TEXT = "gen_ai.retrieval.query.text"
GEN_AI_MEMORY_CONTENT = "gen_ai.memory.record.content"

OPERATIONS: Mapping[str, str] = {
    "search": "search_memory",
    "recall": "search_memory",
    "start": "create_memory",
    "feedback": "create_memory",
    "update": "update_memory",
    "log_step": "update_memory",
    "complete": "update_memory",
    "put": "upsert_memory",
    "write": "upsert_memory",
    "learn": "upsert_memory",
    "delete": "delete_memory",
}
"""``gen_ai.operation.name`` by operation; the others are those of a database alone."""

_SYSTEMS: Mapping[str, str] = {
    "turso": "sqlite",
    "libsql": "sqlite",
    "turso+http": "sqlite",
    "turso+https": "sqlite",
    "turso+ws": "sqlite",
    "turso+wss": "sqlite",
}


def database_attributes(call: Call) -> dict[str, str | int]:
    """The attributes of an operation as one of a database; few values each, so they fit metrics too."""
    found: dict[str, str | int] = {
        DB_SYSTEM_NAME: _SYSTEMS.get(call.backend, call.backend),
        DB_OPERATION_NAME: call.operation,
        DB_COLLECTION_NAME: call.kind,
        DB_NAMESPACE: call.namespace,
    }
    if "://" in call.location:
        parts = urlsplit(call.location)
        if parts.hostname is not None:
            found[SERVER_ADDRESS] = parts.hostname
        if parts.port is not None:
            found[SERVER_PORT] = parts.port
    return found


def memory_attributes(call: Call) -> dict[str, str]:
    """The attributes of an operation as one of a GenAI memory; none where it is not."""
    name = OPERATIONS.get(call.operation)
    if name is None:
        return {}
    found = {GEN_AI_OPERATION_NAME: name, GEN_AI_MEMORY_STORE_ID: call.namespace}
    ids = _ids(call)
    if len(ids) == 1:
        found[GEN_AI_MEMORY_RECORD_ID] = ids[0]
    return found


def _ids(call: Call) -> list[str]:
    if call.operation in ("search", "recall"):
        return []
    found = (_id_of(given) for given in call.args)
    return [str(one) for one in found if one is not None]


def _id_of(given: object) -> UUID | None:
    if isinstance(given, Record):
        return given.id
    if not isinstance(given, str):
        return given if isinstance(given, UUID) else None
    try:
        return UUID(given)
    except ValueError:
        return None
