"""Records to bytes and back: the envelope, compression, and JSON at the edges."""

from memory_core.codec.envelope import Codec, EncodedPut, Operation

__all__ = ["Codec", "EncodedPut", "Operation"]
