"""Declarations of record fields: converters whose annotations say what a field accepts.

Type checkers read what a constructor accepts from its converters' annotations, and mypy only reads
those of named functions. So the converters here are plain functions. ``checked`` then replaces each of
them with one that knows the name and the bounds of its field::

    @frozen(kw_only=True, field_transformer=checked("step."))
    class ExecutionStep:
        number: int = field(converter=to_integer, metadata=within(1))

Values are checked by ``fields``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeAlias, cast
from uuid import UUID

from attrs import Attribute

from memory_core.records import fields

__all__ = [
    "NOTES",
    "NOT_EMPTY",
    "RULES",
    "checked",
    "instance",
    "notes",
    "to_integer",
    "to_json_object",
    "to_json_value",
    "to_number",
    "to_optional_integer",
    "to_optional_number",
    "to_optional_text",
    "to_optional_time",
    "to_optional_uuid",
    "to_string_map",
    "to_text",
    "to_texts",
    "to_time",
    "to_uuid",
    "to_uuids",
    "within",
]

_Converter: TypeAlias = Callable[[Any], Any]

RULES = "memory_core"
"""Key under which ``checked`` finds its data in a field's metadata."""

NOTES = "memory_core.notes"
"""Key of what the docs say about a field beyond its declaration."""

NOT_EMPTY: Mapping[str, Any] = {RULES: {"empty": False}}
"""Metadata of a text that is not only white space."""


def within(low: float | None = None, high: float | None = None) -> Mapping[str, Any]:
    """Metadata of a number within bounds, both inclusive."""
    return {RULES: {"low": low, "high": high}}


def notes(*, limit: str = "", default: str = "") -> Mapping[str, Any]:
    """Metadata for the docs about checks and defaults that the class implements itself.

    Args:
        limit: which values are rejected: ``"not negative"``.
        default: the value of an omitted field, where the declared default does not show it.
    """
    return {NOTES: {"limit": limit, "default": default}}


def instance(cls: type, *, optional: bool = False) -> Mapping[str, Any]:
    """Metadata of a field without a converter: its value is an instance of a class.

    Args:
        cls: the class.
        optional: whether it may be ``None``.
    """
    return {RULES: {"instance": cls, "optional": optional}}


def to_text(value: str) -> str:
    """A text that UTF-8 can represent."""
    return fields.a_text("value")(value)


def to_optional_text(value: str | None) -> str | None:
    """As ``to_text``, or ``None``."""
    return fields.optional(fields.a_text("value"))(value)


def to_uuid(value: UUID | str) -> UUID:
    """A UUID, or its text."""
    return fields.a_uuid("value")(value)


def to_optional_uuid(value: UUID | str | None) -> UUID | None:
    """As ``to_uuid``, or ``None``."""
    return fields.optional(fields.a_uuid("value"))(value)


def to_time(value: datetime) -> datetime:
    """An aware time, kept in UTC."""
    return fields.a_time("value")(value)


def to_optional_time(value: datetime | None) -> datetime | None:
    """As ``to_time``, or ``None``."""
    return fields.optional(fields.a_time("value"))(value)


def to_integer(value: int) -> int:
    """A 64-bit integer."""
    return fields.an_integer("value")(value)


def to_optional_integer(value: int | None) -> int | None:
    """As ``to_integer``, or ``None``."""
    return fields.optional(fields.an_integer("value"))(value)


def to_number(value: float) -> float:
    """A finite number."""
    return fields.a_number("value")(value)


def to_optional_number(value: float | None) -> float | None:
    """As ``to_number``, or ``None``."""
    return fields.optional(fields.a_number("value"))(value)


def to_texts(value: Iterable[str]) -> tuple[str, ...]:
    """Texts, from any iterable but a string."""
    return fields.texts("value")(value)


def to_uuids(value: Iterable[UUID | str]) -> tuple[UUID, ...]:
    """UUIDs, from any iterable of them or of their texts."""
    return fields.uuids("value")(value)


def to_string_map(value: Mapping[str, str]) -> dict[str, str]:
    """A mapping of strings to strings, frozen."""
    return fields.a_string_map("value")(value)


def to_json_value(value: Any) -> Any:
    """Any JSON value, frozen."""
    return fields.a_json_value("value")(value)


def to_json_object(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object, frozen."""
    return fields.a_json_object("value")(value)


_OPTIONAL: Mapping[_Converter, Callable[..., _Converter]] = {
    to_optional_text: fields.a_text,
    to_optional_uuid: fields.a_uuid,
    to_optional_time: fields.a_time,
    to_optional_integer: fields.an_integer,
    to_optional_number: fields.a_number,
}
_REQUIRED: Mapping[_Converter, Callable[..., _Converter]] = {
    to_text: fields.a_text,
    to_uuid: fields.a_uuid,
    to_time: fields.a_time,
    to_integer: fields.an_integer,
    to_number: fields.a_number,
    to_texts: fields.texts,
    to_uuids: fields.uuids,
    to_string_map: fields.a_string_map,
    to_json_value: fields.a_json_value,
    to_json_object: fields.a_json_object,
}


def checked(
    prefix: str = "",
) -> Callable[[type, list[Attribute[Any]]], list[Attribute[Any]]]:
    """A ``field_transformer`` for attrs: converters that name the field in their errors.

    Args:
        prefix: what comes before a field's name: ``"step."`` makes ``number`` ``"step.number"``.
    """

    def transform(_: type, attributes: list[Attribute[Any]]) -> list[Attribute[Any]]:
        return [_checked(prefix + attribute.name, attribute) for attribute in attributes]

    return transform


def _checked(name: str, attribute: Attribute[Any]) -> Attribute[Any]:
    declared: _Converter | None = cast("Any", attribute).converter
    rules: Mapping[str, Any] = attribute.metadata.get(RULES, {})
    if declared is None:
        if "instance" not in rules:
            return attribute
        convert: Any = fields.an_instance(name, rules["instance"])
        optional = rules["optional"]
    else:
        optional = declared in _OPTIONAL
        make = _OPTIONAL.get(declared) or _REQUIRED.get(declared)
        if make is None:
            # The class's own converter, which knows its field, or one that a base class has installed.
            return attribute
        convert = make(name, **rules)
    if optional:
        convert = fields.optional(convert)
    if declared is not None:
        # So that signatures show what the declared converter accepts.
        convert.__wrapped__ = declared
    return attribute.evolve(converter=convert)
