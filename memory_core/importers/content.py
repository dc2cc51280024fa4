"""The text of a message: strings, lists of parts as the providers have them, media as notes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from memory_core.importers.fields import json_of, mapping, plain_text
from memory_core.importers.json_text import NotJsonError, is_held, loads
from memory_core.importers.unknown import count_unknown_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from memory_core.importers.draft import Draft
    from memory_core.importers.log import Log

__all__ = ["arguments_of", "first_line", "parameters_of", "set_result", "text_of", "without_media"]

_TEXTS = ("text", "refusal", "output_text", "input_text")
_DATA_URL = re.compile(r"data:([\w.+/-]*)[^,]{0,200},(.*)", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{1000,}={0,2}")
_BASE64_START = re.compile(r"[A-Za-z0-9+/_-]{200}")
_TYPES = ("media_type", "mediaType", "mime_type", "mimeType", "format")
# Only its provider can read it.
_SEALED = {"encrypted_content", "encrypted_index", "signature"}
_FAILED = re.compile(
    r"\s*(?:[\w.]*(?:Error|Exception)|error)\s*:|\s*Traceback \(most recent call last\)"
)
_PLAIN_PART = frozenset({"type", "text"})
_BESIDE_TEXT = {"cache_control", "logprobs"}
_UNKNOWN_TOOL = "Unknown action"
# What a call has besides its arguments.
_OF_A_CALL = frozenset(
    {"name", "function", "id", "call_id", "tool_call_id", "type", "index", "description"}
)


def text_of(content: object, log: Log, place: str = "") -> str:
    """The text of a message's content: a string, parts, or any other JSON value as it is.

    Args:
        content: the content.
        log: gets a note for each medium, which the text names with its type, size and digest.
        place: where it is in the file.
    """
    if type(content) is str:
        return content
    if content is None:
        return ""
    if isinstance(content, str):
        return str(content)
    if isinstance(content, list):
        parts = (_part(part, log, place) for part in cast("list[object]", content))
        return "\n".join(part for part in parts if part is not None)
    if isinstance(content, dict) and isinstance(cast("dict[str, Any]", content).get("type"), str):
        return _part(cast("object", content), log, place) or ""
    return json_of(without_media(cast("object", content), log, place))


def _part(part: object, log: Log, place: str) -> str | None:
    if part is None:
        log.note(place, "a part of the content is null")
        return None
    if isinstance(part, str):
        return str(part)
    fields = mapping(part)
    plain = fields.get("type") == "text" and len(fields) == 2  # type and text
    for name in (*_TEXTS, "value") if plain else _TEXTS:
        text = fields.get(name)
        if isinstance(text, str):
            if not _PLAIN_PART.issuperset(fields):
                _count_what_is_beside(fields, log)
            return str(text)
    kind = fields.get("type")
    if not isinstance(kind, str):
        return json_of(without_media(part, log, place))
    rest = {key: value for key, value in fields.items() if key != "type"}
    if rest.keys() == {"text"} and rest["text"] is None:
        log.note(place, "a text of the content is null")
        return None
    kept = without_media(rest, log, place)
    media = _only_text(kept)
    return f"[{kind}: {media if media is not None else json_of(kept)}]"


def _count_what_is_beside(part: Mapping[str, Any], log: Log) -> None:
    """Count what a text has beside it, such as citations."""
    count_unknown_names(part, log)
    for name, value in part.items():
        if value and isinstance(value, dict | list) and name not in _BESIDE_TEXT:
            log.left_out[f"{name} of texts"] += 1


def _only_text(value: object) -> str | None:
    """What a part says that is nothing but a medium: the one text in it that stands for that."""
    if isinstance(value, dict):
        found = [
            text
            for key, item in cast("dict[str, Any]", value).items()
            if key not in {"type", *_TYPES} and item is not None
            if (text := _only_text(item)) is not None
        ]
        return found[0] if len(found) == 1 else None
    return value if isinstance(value, str) and ", sha256 " in value else None


def without_media(value: object, log: Log, place: str, kind: str = "") -> Any:
    """A JSON value with a short text in place of each medium; what is not a medium stays as it is."""
    if isinstance(value, str):
        return _text_or_medium(value, log, place, kind)
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [without_media(item, log, place, kind) for item in items]
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        own = next((text for name in _TYPES if isinstance(text := fields.get(name), str)), kind)
        sealed = [name for name in _SEALED if isinstance(fields.get(name), str) and fields[name]]
        if sealed:
            log.note(place, f"{', '.join(sealed)} left out, as only the provider can read it")
        return {
            name: without_media(item, log, place, own)
            for name, item in fields.items()
            if name not in sealed
        }
    return value


def _text_or_medium(text: str, log: Log, place: str, kind: str) -> str:
    if text.startswith("data:") and (match := _DATA_URL.fullmatch(text)):
        return log.medium(place, match[1] or kind or "data", match[2])
    long = len(text) >= 1000 or bool(kind and len(text) >= 200)
    if long and _BASE64_START.match(text):
        compact = text.replace("\n", "")
        if _BASE64.fullmatch(compact) or (kind and _BASE64_START.match(compact)):
            return log.medium(place, kind or "data", compact)
    return text


def arguments_of(raw: object, name: str = "arguments") -> Mapping[str, Any]:
    """A call's arguments, given as JSON text or as an object; anything else is kept under a name."""
    if raw is None or raw == "":
        return {}
    if isinstance(raw, dict):
        return cast("dict[str, Any]", raw)
    if isinstance(raw, str):
        try:
            value, repairs = loads(raw.encode("utf-8", "surrogatepass"))
        except NotJsonError:
            return {name: raw}
        if isinstance(value, dict) and not repairs and is_held(value):
            return cast("dict[str, Any]", value)
    return {name: raw}


def parameters_of(call: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A call's arguments under the first of these names; without one, what else the call says."""
    for name in names:
        given = call.get(name)
        if given is not None:
            return arguments_of(given)
    return {name: value for name, value in call.items() if name not in _OF_A_CALL and value}


def set_result(draft: Draft, text: str, failed: bool | None = None) -> None:
    """Give a step its result.

    Args:
        draft: the step.
        text: what the tool answered.
        failed: whether it failed; ``None`` where the format has no mark of that: the text tells.
    """
    if failed is None:
        failed = bool(_FAILED.match(text)) or text.startswith(_UNKNOWN_TOOL) or _has_error(text)
    if failed:
        draft.failed(text)
    else:
        draft.succeeded(text)


def _has_error(text: str) -> bool:
    if '"error"' not in text or not text.lstrip().startswith("{"):
        return False
    try:
        answer, _ = loads(text.encode("utf-8", "surrogatepass"))
    except NotJsonError:
        return False
    return bool(mapping(answer).get("error"))


def first_line(value: object, most: int = 200) -> str:
    """The first line of a text that is not blank, for a verdict or reason."""
    text = (plain_text(value) or "").strip().split("\n", 1)[0].strip()
    return text if len(text) <= most else f"{text[:most]}…"
