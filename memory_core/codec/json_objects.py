"""Records as JSON objects: for exports, imports and output. Errors name the place in the object."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin
from uuid import UUID

import attrs

from memory_core.config.options import explain
from memory_core.errors import CodecError, InvalidValueError, MemoryCoreError, SchemaVersionError
from memory_core.records import FrozenDict, FrozenList, Record, RecordTypes

if TYPE_CHECKING:
    from cattrs import Converter

__all__ = ["plain_converter", "record_from_json", "record_to_json"]

_KIND, _VARIANT, _VERSION = "kind", "variant", "schema_version"
_NOT_FINITE = ("inf", "-inf", "nan")


@lru_cache(maxsize=1)
def plain_converter() -> Converter:
    """A cattrs converter between attrs classes and values that JSON and msgpack can represent."""
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn

    converter = Converter(detailed_validation=True)
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook(datetime, _to_datetime)
    converter.register_unstructure_hook(timedelta, timedelta.total_seconds)
    converter.register_structure_hook(timedelta, _to_timedelta)
    converter.register_unstructure_hook(UUID, str)
    converter.register_structure_hook(UUID, _to_id)
    for kind, accepted in _EXACT.items():
        converter.register_structure_hook(kind, partial(_exactly, accepted))
    converter.register_structure_hook(float, _to_float)
    converter.register_unstructure_hook(FrozenDict, dict)
    converter.register_unstructure_hook(FrozenList, list)

    def strict(cls: type[Any]) -> Any:
        return make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)

    def tuple_of(cls: type[Any]) -> Any:
        items: Any = list[get_args(cls)[0]]

        def structure(value: Any, _: type) -> tuple[Any, ...]:
            # Iterating over a string would give its letters.
            if not isinstance(value, list | tuple):
                raise TypeError(f"expected an array, got {value!r}")
            return tuple(converter.structure(value, items))

        return structure

    converter.register_structure_hook_factory(attrs.has, strict)
    converter.register_structure_hook_factory(_is_tuple, tuple_of)
    return converter


def record_to_json(record: Record) -> dict[str, Any]:
    """A record as a JSON object: its kind, variant and schema version beside its fields."""
    head: dict[str, Any] = {_KIND: record.kind}
    if record.variant:
        head[_VARIANT] = record.variant
    if record.schema_version != 1:
        head[_VERSION] = record.schema_version
    return head | _plain(plain_converter().unstructure(record))


def record_from_json(types: RecordTypes, value: dict[str, Any]) -> Record:
    """Convert an object that ``record_to_json`` made back to a record.

    Raises:
        ConfigurationError: for an unknown kind.
        CodecError: when the object does not fit the kind; the message names each field.
        SchemaVersionError: when a newer version wrote it.
    """
    body = dict(value)
    kind, variant = body.pop(_KIND, None), body.pop(_VARIANT, "")
    version = body.pop(_VERSION, 1)
    if not isinstance(kind, str):
        raise CodecError("the object has no kind")
    if not isinstance(variant, str):
        raise CodecError(f"{kind}: the variant is not text: {variant!r}")
    cls = types.variants(kind).get(variant)
    if cls is None:
        raise CodecError(f"unknown variant {variant!r} of kind {kind!r}")
    if version != cls.schema_version:
        body = _upcast(cls, body, version)
    from cattrs import ClassValidationError

    try:
        return plain_converter().structure(body, cls)
    except ClassValidationError as error:
        raise CodecError(f"{kind}: {explain(error)}") from error
    except RecursionError as error:
        raise CodecError(f"{kind}: it is nested too deeply") from error
    except (InvalidValueError, TypeError, ValueError) as error:
        raise CodecError(f"{kind}: {error}") from error


def _upcast(kind: type[Record], body: dict[str, Any], version: Any) -> dict[str, Any]:
    if type(version) is not int:
        raise CodecError(f"{kind.kind}: schema version {version!r} is not a number")
    if version > kind.schema_version:
        raise SchemaVersionError(f"a {kind.kind} record", version, kind.schema_version)
    try:
        return kind.upcast(body, version)
    except MemoryCoreError:
        raise
    except Exception as error:
        # `upcast` is a plugin's code and may raise anything.
        raise CodecError(f"{kind.kind}: upcast from version {version} failed: {error!r}") from error


def _plain(value: Any) -> Any:
    """The value in JSON's types: cattrs leaves tuples and enums inside ``Any`` as they are.

    JSON has no infinities; as text they are read back into a field that is a number.
    """
    if type(value) is float and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[Any]", value)]
    return value.value if isinstance(value, Enum) else value


_EXACT: dict[type, tuple[type, str]] = {
    str: (str, "text"),
    int: (int, "a whole number"),
    bool: (bool, "true or false"),
}
"""What a field of a type takes: an export loads as it was written, or not at all."""


def _exactly(accepted: tuple[type, str], value: Any, _: type) -> Any:
    kind, words = accepted
    # A truth value is not a number here.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"expected {words}, got {value!r}")
    return value


def _to_float(value: Any, _: type) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number or value in _NOT_FINITE:
        return float(value)
    raise TypeError(f"expected a number, got {value!r}")


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple and get_args(kind)[1:] == (...,)


def _to_datetime(value: Any, _: type) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def _to_id(value: Any, _: type) -> UUID:
    if isinstance(value, UUID):
        return value
    if not isinstance(value, str):
        raise TypeError(f"expected an id, got {value!r}")
    return UUID(value)


def _to_timedelta(value: Any, _: type) -> timedelta:
    return value if isinstance(value, timedelta) else timedelta(seconds=_to_float(value, float))
