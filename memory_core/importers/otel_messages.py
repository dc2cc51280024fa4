"""Messages in OpenTelemetry's GenAI attributes and events, whichever version wrote them, as chat messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from memory_core.importers.fields import mapping, plain_text, sequence
from memory_core.importers.json_text import NotJsonError, loads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "SAID",
    "decoded_attributes",
    "in_attributes",
    "in_event",
    "instructions_in",
    "is_genai",
    "structure",
]

_INPUTS = ("gen_ai.input.messages", "gen_ai.prompt")
_OUTPUTS = ("gen_ai.output.messages", "gen_ai.completion")
SAID = (
    *_INPUTS, *_OUTPUTS, "gen_ai.system", "gen_ai.tool.", "gen_ai.usage.", "gen_ai.agent.name",
    "gen_ai.conversation.id", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.model",
    "gen_ai.operation.name", "error.type",
)  # fmt: skip
"""What the names of attributes begin with that are read."""

_SCALARS = ("stringValue", "boolValue", "doubleValue", "intValue", "bytesValue")
# As protobuf names them, which some exporters keep.
_SNAKE = {
    "string_value": "stringValue",
    "bool_value": "boolValue",
    "double_value": "doubleValue",
    "int_value": "intValue",
    "bytes_value": "bytesValue",
    "array_value": "arrayValue",
    "kvlist_value": "kvlistValue",
}
_EVENT_ROLES = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
    "gen_ai.choice": "assistant",
}
_DEEPEST = 40
_MOST_NUMBERED = 100_000


def is_genai(attributes: Mapping[str, Any]) -> bool:
    """Whether a span has GenAI attributes."""
    return any(name.startswith("gen_ai.") for name in attributes)


def decoded_attributes(pairs: object) -> dict[str, Any]:
    """OTLP's list of keys and typed values as an object."""
    return {
        plain_text(mapping(pair).get("key")) or "": _value(mapping(pair).get("value"), 0)
        for pair in sequence(pairs)
    }


def _value(typed: object, depth: int) -> Any:
    if depth > _DEEPEST or (typed and not mapping(typed)):
        return typed
    fields = {_SNAKE.get(name, name): value for name, value in mapping(typed).items()}
    for name in _SCALARS:
        if name in fields:
            value = fields[name]
            is_count = (
                name == "intValue" and isinstance(value, str) and value.lstrip("-").isdecimal()
            )
            return int(value) if is_count and len(value) < 20 else value
    if "arrayValue" in fields:
        items = sequence(mapping(fields["arrayValue"]).get("values"))
        return [_value(item, depth + 1) for item in items]
    if "kvlistValue" in fields:
        pairs = sequence(mapping(fields["kvlistValue"]).get("values"))
        named = ((plain_text(mapping(pair).get("key")), pair) for pair in pairs)
        return {
            key: _value(mapping(p).get("value"), depth + 1) for key, p in named if key is not None
        }
    return None if not fields else dict(fields)


def structure(value: object) -> Any:
    """A structured attribute, which many SDKs write as JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return loads(value.encode("utf-8", "surrogatepass"))[0]
        except NotJsonError:
            return value
    return value


def instructions_in(attributes: Mapping[str, Any]) -> dict[str, Any] | None:
    """The system instructions, as a message."""
    given = structure(attributes.get("gen_ai.system_instructions"))
    if parts := sequence(given):
        return next(_with_parts("system", parts), None)
    return {"role": "system", "content": given} if given else None


def in_attributes(
    attributes: Mapping[str, Any], *, outputs: bool = False
) -> Iterator[dict[str, Any]]:
    """The messages in a span's (or an event's) attributes.

    Args:
        attributes: the attributes.
        outputs: whether what the model answered is asked for, not what it was asked.
    """
    role = "assistant" if outputs else "user"
    for name in _OUTPUTS if outputs else _INPUTS:
        given = structure(attributes.get(name))
        if isinstance(given, str):
            yield {"role": role, "content": given}
        for message in sequence(given) or [given]:
            yield from _message(mapping(message), role)
    yield from _numbered(attributes, "gen_ai.completion" if outputs else "gen_ai.prompt", role)


def _message(message: Mapping[str, Any], role: str) -> Iterator[dict[str, Any]]:
    if not message:
        return
    role = plain_text(message.get("role")) or role
    if isinstance(message.get("parts"), list):
        yield from _with_parts(role, sequence(message["parts"]))
    else:
        inner = mapping(message.get("message"))
        yield {"role": role, **(inner or message)}


def _with_parts(role: str, parts: list[Any]) -> Iterator[dict[str, Any]]:
    """A message, and an answer for each response of a tool in it."""
    said: list[Any] = []
    calls: list[Any] = []
    thoughts: list[Any] = []
    answers: list[dict[str, Any]] = []
    for part in parts:
        fields = mapping(part)
        kind = fields.get("type")
        if kind == "tool_call":
            calls.append({"id": fields.get("id"), "function": fields})
        elif kind == "tool_call_response":
            content = fields.get("response", fields.get("result"))
            answers.append({"role": "tool", "tool_call_id": fields.get("id"), "content": content})
        else:
            own = fields.get("content") if kind in ("text", "reasoning") else part
            (thoughts if kind == "reasoning" else said).append(own)
    if said or calls or thoughts:
        yield {"role": role, "content": said, "reasoning": thoughts, "tool_calls": calls}
    yield from answers


def _numbered(attributes: Mapping[str, Any], prefix: str, role: str) -> Iterator[dict[str, Any]]:
    """Messages whose fields are attributes each: ``gen_ai.prompt.0.role``."""
    found: dict[int, dict[str, Any]] = {}
    for name, value in attributes.items():
        if not name.startswith(f"{prefix}."):
            continue
        number, _, path = name.removeprefix(f"{prefix}.").partition(".")
        if number.isdecimal() and len(number) < len(str(_MOST_NUMBERED)):
            found.setdefault(int(number), {})[path] = value
    for _, fields in sorted(found.items()):
        calls: dict[str, dict[str, Any]] = {}
        for path, value in fields.items():
            parts = path.split(".")
            if parts[0] == "tool_calls" and len(parts) == 3:
                calls.setdefault(parts[1], {})[parts[2]] = value
        yield {
            "role": fields.get("role") or role,
            "content": structure(fields.get("content")),
            "tool_call_id": fields.get("tool_call_id"),
            "tool_calls": [{"id": call.get("id"), "function": call} for call in calls.values()],
        }


def in_event(
    name: str, attributes: Mapping[str, Any], body: object
) -> tuple[list[dict[str, Any]], bool]:
    """The messages in an event of a span, or in a log record.

    Returns:
        The messages, and whether the model answered them.
    """
    role = _EVENT_ROLES.get(name)
    if role is None:
        asked = [*in_attributes(attributes)]
        return (asked, False) if asked else ([*in_attributes(attributes, outputs=True)], True)
    content = structure(body) if body is not None else None
    fields: dict[str, Any] = {**attributes, **mapping(content)}
    if isinstance(content, str):
        fields["content"] = content
    inner = structure(fields.get("message"))
    if isinstance(inner, str):
        fields["content"] = inner
    fields |= mapping(cast("object", inner))
    calls = structure(fields.get("tool_calls"))
    message = {
        "role": plain_text(fields.get("role")) or role,
        "content": fields.get("content", fields.get("gen_ai.event.content")),
        "tool_calls": calls,
        "tool_call_id": fields.get("id") if role == "tool" else None,
    }
    return [message], name == "gen_ai.choice"
