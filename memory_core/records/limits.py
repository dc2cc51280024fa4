"""Size limits of records. A record over a limit is rejected, never cut; the error names the limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen
from attrs.validators import ge, le

from memory_core.errors import RecordTooLargeError
from memory_core.values import Value

if TYPE_CHECKING:
    from memory_core.records.base import IndexValues, Record

__all__ = ["Limits"]

_COMPLETING = 3
"""The operations of the batch that completes an episode, besides the deletes of its logged steps."""


@frozen(kw_only=True, eq=False, repr=False)
class Limits(Value):
    """The size limits of a store.

    Attributes:
        max_record_bytes: encoded size of a record before compression.
        max_index_bytes: UTF-8 size of a single-valued indexed string (``domain``); at most 400, as
            some engines bound their keys. Values of multi-valued indexes may be longer.
        max_index_values: how many values a multi-valued index (tags) may have in one record.
        max_steps: steps of an episode. Steps that are logged one by one are at most three fewer
            than ``max_batch_operations``, as one batch completes the episode.
        max_batch_operations: puts and deletes in one ``WriteBatch``.
    """

    max_record_bytes: int = field(default=16 * 2**20, validator=ge(1))
    max_index_bytes: int = field(default=400, validator=[ge(1), le(400)])
    max_index_values: int = field(default=1_000, validator=ge(1))
    max_steps: int = field(default=100_000, validator=ge(1))
    max_batch_operations: int = field(default=100_000, validator=ge(1))

    def check_values(self, record: Record, values: IndexValues) -> None:
        """Check a record's index values.

        Raises:
            RecordTooLargeError: when one exceeds its limit.
        """
        for name, value in values.items():
            if type(value) is str:
                # A character has at most four bytes, so the exact size matters only near the limit.
                if len(value) * 4 > self.max_index_bytes:
                    self._at_most(record, name, len(value.encode()), "max_index_bytes")
            elif type(value) is tuple and len(value) > self.max_index_values:
                self._at_most(record, name, len(value), "max_index_values")

    def check_steps(self, record: Record, steps: int) -> None:
        """Check the number of an episode's steps.

        Raises:
            RecordTooLargeError: when it exceeds ``max_steps``.
        """
        self._at_most(record, "steps", steps, "max_steps")

    def check_logged(self, record: Record, number: int) -> None:
        """Check the number of a step that is logged.

        One batch completes an episode and deletes its logged steps, so they must fit into a batch.

        Raises:
            RecordTooLargeError: when it exceeds ``max_steps``, or ``max_batch_operations`` less three.
        """
        self.check_steps(record, number)
        most = self.max_batch_operations - _COMPLETING
        if number > most:
            what = f"{record.kind} {record.id}: steps to be completed in one batch"
            raise RecordTooLargeError(what, number, most, "max_batch_operations")

    def check_bytes(self, record: Record, size: int) -> None:
        """Check a record's encoded size.

        Raises:
            RecordTooLargeError: when it exceeds ``max_record_bytes``.
        """
        if size > self.max_record_bytes:
            self._at_most(record, "encoded record", size, "max_record_bytes")

    def check_batch(self, operations: int) -> None:
        """Check the number of operations of a batch.

        Raises:
            RecordTooLargeError: when it exceeds ``max_batch_operations``.
        """
        if operations > self.max_batch_operations:
            raise RecordTooLargeError(
                "batch", operations, self.max_batch_operations, "max_batch_operations"
            )

    def _at_most(self, record: Record, what: str, size: int, limit_name: str) -> None:
        limit: int = getattr(self, limit_name)
        if size > limit:
            raise RecordTooLargeError(f"{record.kind} {record.id}: {what}", size, limit, limit_name)
