"""Conversion of options, as users write them in URLs, settings files and arguments, into config classes.

A config class lists its removed options in ``dropped_options: ClassVar[Mapping[str, str]]``, each with
the reason or the replacement. They are still accepted, have no effect, and cause a
``DeprecationWarning``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import attrs

from memory_core.config.redaction import is_secret
from memory_core.config.spelling import similar
from memory_core.errors import ConfigurationError, MemoryCoreError

if TYPE_CHECKING:
    from cattrs import ClassValidationError, Converter

__all__ = [
    "accepts_dropped",
    "build_options",
    "converter",
    "explain",
    "flag_of",
    "names_of",
    "option_names",
    "structured",
    "table_of",
    "text_of",
    "without_dropped",
]

T = TypeVar("T")
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def option_names(config: type) -> list[str]:
    """The dotted names of a config class's options."""
    names: list[str] = []
    hints = get_type_hints(config)
    for item in attrs.fields(config):
        nested = hints.get(item.name)
        if isinstance(nested, type) and attrs.has(nested):
            names += [f"{item.name}.{name}" for name in option_names(nested)]
        else:
            names.append(item.name)
    return names


def accepts_dropped(config: type[T]) -> type[T]:
    """A class decorator: the constructor still takes the ``dropped_options`` as keywords.

    Each one that is given causes a ``DeprecationWarning``. The decorator stands above ``@frozen``.
    """
    init: Any = config.__init__
    reasons: Mapping[str, str] = vars(config)["dropped_options"]

    @wraps(init)
    def accepting(self: T, *args: Any, **options: Any) -> None:
        for name in reasons.keys() & options.keys():
            del options[name]
            _warn(config.__name__, name, reasons[name], stacklevel=3)
        init(self, *args, **options)

    config.__init__ = accepting
    return config


def without_dropped(
    config: type, options: Mapping[str, Any], *, where: str, stacklevel: int = 2
) -> dict[str, Any]:
    """Options by dotted name, without the dropped ones; warns about each of these.

    Where a nested class was dropped, so were all of its options.
    """
    reasons = _dropped(config)
    kept: dict[str, Any] = {}
    for name, value in options.items():
        parts = name.split(".")
        heads = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
        dropped = next((head for head in heads if head in reasons), None)
        if dropped is None:
            kept[name] = value
        else:
            _warn(where, name, reasons[dropped], stacklevel=stacklevel + 1)
    return kept


def _warn(where: str, name: str, reason: str, *, stacklevel: int) -> None:
    warnings.warn(
        f"{where}: option {name!r} has no effect any more: {reason}",
        DeprecationWarning,
        stacklevel=stacklevel,
    )


def _dropped(config: type) -> dict[str, str]:
    """The dropped options of a config class and its nested classes, with their reasons, by dotted name."""
    reasons = dict[str, str](getattr(config, "dropped_options", {}))
    for name, nested in get_type_hints(config).items():
        if isinstance(nested, type) and attrs.has(nested):
            reasons |= {f"{name}.{inner}": reason for inner, reason in _dropped(nested).items()}
    return reasons


def build_options(config: type[T], options: Mapping[str, Any], *, where: str) -> T:
    """Make a config object from options by dotted name; texts are converted to the fields' types.

    Raises:
        ConfigurationError: for an unknown option (the message lists the valid ones) or a wrong value.

    Warns:
        DeprecationWarning: an option was dropped.
    """
    if not options:
        # Most stores are opened without options: then cattrs and its compiled converters are not loaded.
        return config()
    flat = without_dropped(config, _flattened(options), where=where, stacklevel=3)
    valid = option_names(config)
    unknown = sorted(set(flat) - set(valid))
    if unknown:
        raise ConfigurationError(
            f"{where}: unknown option {', '.join(map(repr, unknown))}; valid: {', '.join(sorted(valid))}"
            f"{similar(unknown[0], valid)}"
        )
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        if is_secret(name) and not isinstance(value, str | None):
            raise ConfigurationError(f"{where}: {name}: expected text")
        *parents, last = name.split(".")
        inner = nested
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return structured(nested, config, where=where)


def structured(value: Any, config: type[T], *, where: str) -> T:
    """Convert a table to a config class.

    Raises:
        ConfigurationError: for an unknown key or a wrong value.
    """
    from cattrs import ClassValidationError

    try:
        return converter().structure(value, config)
    except ClassValidationError as error:
        raise ConfigurationError(f"{where}: {explain(error)}") from error
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: {error}") from error


def explain(error: ClassValidationError) -> str:
    """Every problem that cattrs found, each with its path."""
    from cattrs import transform_error
    from cattrs.v import format_exception

    def describe(problem: BaseException, kind: type | None) -> str:
        if isinstance(problem, MemoryCoreError) and str(problem):
            return str(problem)
        if isinstance(problem, ValueError | TypeError) and problem.args:
            # Some validators of attrs pass what they checked as further arguments.
            return str(problem.args[0])
        return format_exception(problem, kind)

    return "; ".join(map(_placed, transform_error(error, format_exception=describe)))


def _placed(problem: str) -> str:
    """``place: problem`` of cattrs' ``problem @ $.place``."""
    said, _, place = problem.rpartition(" @ $")
    place = place.removeprefix(".")
    return f"{place}: {said}" if place else said


def _flattened(options: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            flat |= _flattened(cast("Mapping[str, Any]", value), f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


@lru_cache(maxsize=1)
def converter() -> Converter:
    """The converter of options: it converts texts to the fields' types and rejects unknown keys."""
    from cattrs import Converter
    from cattrs.gen import make_dict_structure_fn

    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    converter.register_structure_hook(bool, _to_bool)
    converter.register_structure_hook(int, _to_int)
    converter.register_structure_hook(str, _to_text)
    converter.register_structure_hook(float, _to_float)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _to_choice)
    converter.register_structure_hook_func(
        lambda kind: kind == tuple[str, ...], lambda value, _: names_of(value)
    )
    converter.register_structure_hook_func(
        lambda kind: kind == Mapping[str, Any], lambda value, _: table_of(value)
    )

    def structure_fields(cls: type[Any]) -> Any:
        fields = make_dict_structure_fn(cls, converter, _cattrs_forbid_extra_keys=True)
        return lambda value, kind: fields(table_of(value), kind)  # pyright: ignore[reportUnknownLambdaType, reportUnknownVariableType]  # a hook's arguments

    converter.register_structure_hook_factory(attrs.has, structure_fields)
    return converter


def _to_bool(value: Any, _: type) -> bool:
    text = str(value).strip().lower()
    if text in _TRUE | _FALSE:
        return text in _TRUE
    raise ValueError(f"expected true or false, got {value!r}")


def flag_of(value: Any, name: str) -> bool:
    """A truth value, also one that is written as text.

    Raises:
        ConfigurationError: the value is not one.
    """
    try:
        return _to_bool(value, bool)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from error


def _to_int(value: Any, _: type) -> int:
    try:
        if isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise ValueError(f"expected a whole number, got {value!r}")


def _to_float(value: Any, _: type) -> float:
    try:
        if not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"expected a number, got {value!r}")


def _to_choice(value: Any, kind: Any) -> Any:
    choices = get_args(kind)
    if value not in choices:
        raise ValueError(f"expected one of {', '.join(map(str, choices))}, got {value!r}")
    return value


def _to_text(value: Any, _: type) -> str:
    return text_of(value)


def text_of(value: Any) -> str:
    """The text.

    Raises:
        TypeError: the value is not one.
    """
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value!r}")
    return value


def names_of(value: Any) -> tuple[str, ...]:
    """Names from a list, or from a text that separates them by commas.

    Raises:
        TypeError: the value is neither.
    """
    given: list[Any] = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, Sequence) or not all(isinstance(item, str) for item in given):  # pyright: ignore[reportUnnecessaryIsInstance]  # a file may hold anything
        raise TypeError(f"expected names, got {value!r}")
    return tuple(name.strip() for name in given if name.strip())


def table_of(value: Any) -> dict[str, Any]:
    """The table, as a ``dict``.

    Raises:
        TypeError: the value is not one.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"expected a table, got {value!r}")
    return dict(cast("Mapping[str, Any]", value))
