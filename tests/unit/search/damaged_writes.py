"""Stored records that are damaged, on any backend: the codec of a faulty writer."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from memory_core.codec.envelope import Codec

SPOILT = "ZZZZ"
"""What a step says that a faulty writer encodes as a number."""


@contextmanager
def a_bit_flips() -> Iterator[None]:
    """What is written meanwhile has another last byte than its checksum says."""
    seal = Codec.seal

    def flipped(self, record, body, frame):
        sealed = seal(self, record, body, frame)
        return sealed[:-1] + bytes((sealed[-1] ^ 1,))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Codec, "seal", flipped)
        yield


@contextmanager
def a_writer_is_faulty() -> Iterator[None]:
    """In what is written meanwhile, the text `SPOILT` is the number 1; the checksum fits."""
    serialize = Codec.serialize

    def spoilt(self, record):
        body = serialize(self, record)
        assert b"\xa4ZZZZ" in body, "nothing is damaged"
        return body.replace(b"\xa4ZZZZ", b"\xce\0\0\0\1")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Codec, "serialize", spoilt)
        yield
