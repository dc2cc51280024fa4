"""What logs of chats say around their messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memory_core.importers.fields import mapping, plain_text
from memory_core.records import Outcome, OutcomeStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from memory_core.importers.fields import Fields

__all__ = ["Around", "logged_outcome"]


class Around:
    """What may be in the entry or in the objects inside of it."""

    def __init__(self, entry: Fields) -> None:
        value = entry.value
        inside = (value.get(name) for name in ("metadata", "response", "request"))
        self._parts = [value, *(mapping(part) for part in inside if part)]
        self._names: set[str] = set().union(*self._parts)

    def get(self, *names: str) -> Any:
        """The first of the names, each looked for everywhere."""
        for name in names:
            if name not in self._names:
                continue
            for part in self._parts:
                if part.get(name) is not None:
                    return part[name]
        return None


_OUTCOMES: dict[str, tuple[Callable[[str], Outcome], str]] = {
    OutcomeStatus.SUCCESS: (Outcome.success, "Logged as a success."),
    OutcomeStatus.PARTIAL_SUCCESS: (Outcome.partial_success, "Logged as a partial success."),
    OutcomeStatus.FAILURE: (Outcome.failure, "Logged as a failure."),
    OutcomeStatus.ABSTAINED: (Outcome.abstained, "Logged as abstained."),
}


def logged_outcome(around: Around) -> Outcome | None:
    """The outcome that a log names: a status with words, or whether it was a success."""
    status = around.get("outcome")
    if status is None and isinstance(success := around.get("success"), bool):
        status = OutcomeStatus.SUCCESS if success else OutcomeStatus.FAILURE
    if not isinstance(status, str) or status not in _OUTCOMES:
        return None
    make, words = _OUTCOMES[status]
    return make(plain_text(around.get("verdict", "reason")) or words)
