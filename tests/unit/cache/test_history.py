"""The newest changes of a namespace tell whether an entry of a shared tier is valid."""

from __future__ import annotations

from uuid import UUID

from memory_core.cache import history
from memory_core.cache.history import FeedHistory
from memory_core.storage import Change, ChangeOperation


def change(position: int, record: int = 0, *, kind: str = "episode") -> Change:
    return Change(position, kind, UUID(int=record or position), ChangeOperation.PUT)


def key(record: int):
    return ("ns", "episode", UUID(int=record))


def following(*changes: Change, floor: int = 0) -> FeedHistory:
    found = FeedHistory("ns")
    found.start(floor)
    for item in changes:
        found.note(item)
    return found


def test_an_entry_whose_record_has_not_changed_since_is_valid() -> None:
    known = following(change(10, 1), change(12, 2), change(15, 1))
    assert known.holds(key(2), 12, known.mark_at(12))
    assert known.holds(key(2), 14, known.mark_at(14))
    assert known.holds(key(1), 15, known.mark_at(15))
    assert not known.holds(key(1), 14, known.mark_at(14))
    assert not known.holds(key(2), 11, known.mark_at(11))
    assert known.holds(key(3), 10, known.mark_at(10))


def test_an_entry_older_than_the_known_changes_is_not() -> None:
    known = following(change(10, 1), floor=9)
    assert known.holds(key(2), 9, known.mark_at(9))
    assert not known.holds(key(2), 8, known.mark_at(9))
    known.start(20)
    assert not known.knows(19)
    assert known.holds(key(1), 20, known.mark_at(20))


def test_an_entry_of_another_history_is_not() -> None:
    one = following(change(10, 1), change(11, 2))
    other = following(change(10, 1), change(11, 3))
    assert one.mark_at(10) == other.mark_at(10)
    assert one.mark_at(11) != other.mark_at(11)
    assert not other.holds(key(1), 11, one.mark_at(11))
    assert following(change(11, 2, kind="pattern")).mark_at(11) != one.mark_at(11)


def test_processes_agree_on_marks_whenever_they_began() -> None:
    early = following(change(3, 1), change(8, 2), change(12, 3))
    late = following(change(8, 2), change(12, 3), floor=5)
    for position in (8, 10, 12, 30):
        assert early.mark_at(position) == late.mark_at(position)


def test_what_is_remembered_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(history, "REMEMBERED", 10)
    known = following(*(change(number) for number in range(1, 1_000)))
    assert known.knows(999)
    assert not known.knows(900)
    assert known.holds(key(950), 999, known.mark_at(999))
    assert len(known._changes) == len(known._positions) < 20
    assert len(known._last) < 20
