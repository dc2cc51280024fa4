"""Values: immutable objects that are equal when their fields are equal."""

from __future__ import annotations

from operator import attrgetter
from typing import Any, ClassVar

from attrs import fields

__all__ = ["Value"]


class Value:
    """Equality, hash and repr by the fields of an attrs class, as attrs itself would make them.

    A subclass tells attrs to make none::

        @frozen(eq=False, repr=False)
        class Place(Value):
            name: str

    attrs compiles these methods for each class, which took a sixth of the time of a short command.
    """

    __slots__ = ()

    _compared: ClassVar[Any]

    @classmethod
    def __attrs_init_subclass__(cls) -> None:
        names = [field.name for field in fields(cls) if field.eq]
        # One that has no fields equals every other one.
        cls._compared = attrgetter(*names or ["__class__"])

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return bool(self._compared(self) == self._compared(other))

    def __hash__(self) -> int:
        return hash((self.__class__, self._compared(self)))

    def __repr__(self) -> str:
        shown: list[str] = []
        for field in fields(self.__class__):
            if field.repr:
                write = field.repr if callable(field.repr) else repr
                shown.append(f"{field.name}={write(getattr(self, field.name))}")
        return f"{self.__class__.__qualname__.rpartition('>.')[2]}({', '.join(shown)})"
