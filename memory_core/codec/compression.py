"""Compression of stored bodies by zstd, with dictionaries that are trained on the store's own records.

A body is compressed only if that makes it smaller. zstd writes the id of a dictionary into each frame. A
store keeps its dictionaries beside its records; a codec that finds an unknown id asks its backend for the
dictionary (``DictionaryMissingError``).
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import zstandard
from attrs import field, frozen

from memory_core.config.validators import at_least, between, flag
from memory_core.errors import CodecError
from memory_core.values import Value

__all__ = ["CompressionConfig", "Compressor", "DictionaryMissingError"]

# The segment and dmer sizes of zstd's cover algorithm (Liao et al. 2016): with both set, training makes
# one pass instead of searching for them, at no measurable loss on transcripts.
_COVER_SEGMENT = 256
_COVER_DMER = 8
# Private ids of the format (RFC 8878, 5.). zstd's own choice is a digest of the content without the
# entropy tables, so two processes that train at the same time could give two dictionaries one id.
_IDS = range(32_768, 2**31)
_ALL_AT_ONCE = 8
# zstd's fast strategies look a body up in tables of the dictionary, by default of 384 kB. A put that comes
# alone finds them in no cache of the processor, and a body of over 16 kB begins with a copy of them. With
# these sizes they take 96 kB.
_HASH_LOG = 14
_CHAIN_LOG = 13
# With very little data, zstd's trainer crashes the process (in 1.5.7 with 8 samples of one byte).
_LEAST_TRAINING_BYTES = 1024

_from_level = cast(
    "Callable[..., zstandard.ZstdCompressionParameters]",
    zstandard.ZstdCompressionParameters.from_level,  # pyright: ignore[reportUnknownMemberType]  # no type
)


class DictionaryMissingError(CodecError):
    """A frame needs a dictionary that this process has not loaded yet."""

    def __init__(self, dictionary_id: int) -> None:
        super().__init__(f"compressed with dictionary {dictionary_id}, which is not in the store")
        self.dictionary_id = dictionary_id


@frozen(kw_only=True, eq=False, repr=False)
class CompressionConfig(Value):
    """How bodies are compressed.

    Attributes:
        enabled: whether new bodies are compressed; compressed bodies can always be read.
        level: zstd level, 1 to 19.
        threshold: smaller bodies, in bytes, are not compressed.
        dictionary: whether to train a dictionary per kind.
        dictionary_bytes: size of a trained dictionary.
        dictionary_samples: how many bodies of a kind to train it on.
    """

    enabled: bool = field(default=True, validator=flag)
    level: int = field(default=3, validator=between(1, 19, whole=True))
    threshold: int = field(default=256, validator=at_least(0, whole=True))
    dictionary: bool = field(default=True, validator=flag)
    dictionary_bytes: int = field(default=64 * 1024, validator=between(1024, 2**20, whole=True))
    dictionary_samples: int = field(default=32, validator=at_least(8, whole=True))


class Compressor:
    """Compresses and decompresses bodies; safe to use from several threads.

    Args:
        config: how to compress.
        max_bytes: the largest body that a frame may decompress to.
        thresholds: by kind, a threshold that holds where it is above the configured one.
    """

    def __init__(
        self,
        config: CompressionConfig,
        max_bytes: int,
        thresholds: Mapping[str, int] | None = None,
    ) -> None:
        self.config = config
        self._thresholds = thresholds or {}
        self._max_bytes = max_bytes
        self._dictionaries: dict[int, zstandard.ZstdCompressionDict] = {}
        self._active: dict[str, int] = {}
        self._samples: dict[str, list[bytes]] = {}
        self._local = threading.local()
        self.bodies = self.compressed = self.with_dictionary = 0
        self.raw_bytes = self.stored_bytes = 0

    def compress(self, kind: str, body: bytes) -> bytes | None:
        """Compress a body; ``None`` if the result would not be smaller."""
        if not self._is_worth(kind, body):
            return self._counted(body, None, 0)
        dictionary_id = self._dictionary_for(kind, [body])
        return self._counted(body, self._compressor(dictionary_id).compress(body), dictionary_id)

    def compress_all(self, kind: str, bodies: Sequence[bytes]) -> list[bytes | None]:
        """``compress`` for many bodies of a kind: where possible in one call that releases the GIL."""
        # The call creates a context and reads the dictionary into it, which costs too much for few bodies.
        if len(bodies) < _ALL_AT_ONCE or not all(self._is_worth(kind, body) for body in bodies):
            return [self.compress(kind, body) for body in bodies]
        dictionary_id = self._dictionary_for(kind, bodies)
        compressor = self._compressor(dictionary_id)
        # Not every backend of zstandard has this method.
        together = getattr(compressor, "multi_compress_to_buffer", None)
        frames: Iterable[bytes] = (
            map(compressor.compress, bodies)
            if together is None
            else (segment.tobytes() for segment in together(list(bodies)))
        )
        return [
            self._counted(body, frame, dictionary_id)
            for body, frame in zip(bodies, frames, strict=True)
        ]

    def decompress(self, frame: bytes, max_bytes: int | None = None) -> bytes:
        """The body.

        Args:
            frame: what ``compress`` returned.
            max_bytes: the largest body, where that is less than any body may have.

        Raises:
            CodecError: when the frame is corrupt, or would become larger than the bound.
            DictionaryMissingError: when its dictionary has not been added.
        """
        most = self._max_bytes if max_bytes is None else max_bytes
        try:
            parameters = zstandard.get_frame_parameters(frame)
            if parameters.content_size > most:
                # zstd gives an unknown size as the largest number.
                raise CodecError(f"frame of {parameters.content_size} bytes, over {most}")
            return self._decompressor(parameters.dict_id).decompress(frame)
        except zstandard.ZstdError as error:
            raise CodecError(f"corrupt zstd frame: {error}") from error

    def trainable(self) -> list[str]:
        """The kinds with enough sampled bodies to train a dictionary."""
        wanted = self.config.dictionary_samples
        # A copy, as another thread may be collecting.
        samples = list(self._samples.items())
        return [kind for kind, collected in samples if len(collected) >= wanted]

    def train(self, kind: str) -> bytes | None:
        """Train a dictionary on the sampled bodies. Takes about 15 ms of CPU and releases the GIL.

        Returns:
            The dictionary, which is used once it has been added; ``None`` when the bodies have too
            little in common.
        """
        # A kind is trained once: it collects no more samples.
        self._active.setdefault(kind, 0)
        samples = self._samples.pop(kind, [])
        if sum(map(len, samples)) < _LEAST_TRAINING_BYTES:
            return None
        try:
            trained = zstandard.train_dictionary(
                self.config.dictionary_bytes,
                cast("list[Any]", samples),
                k=_COVER_SEGMENT,
                d=_COVER_DMER,
                dict_id=secrets.choice(_IDS),
            )
        except zstandard.ZstdError:
            return None
        return trained.as_bytes()

    def add(self, kind: str, dictionary: bytes) -> int:
        """Add a dictionary, and compress further bodies of the kind with it.

        Returns:
            Its id.
        """
        loaded = zstandard.ZstdCompressionDict(dictionary)
        # Otherwise each call for many bodies prepares it, which takes as long as compressing two of them.
        loaded.precompute_compress(compression_params=self._parameters(len(dictionary)))  # pyright: ignore[reportUnknownMemberType]  # no type
        dictionary_id = loaded.dict_id()
        self._dictionaries[dictionary_id] = loaded
        self._active[kind] = dictionary_id
        self._samples.pop(kind, None)
        return dictionary_id

    def stats(self) -> dict[str, Any]:
        """Compression statistics since the store was opened."""
        return {
            "bodies": self.bodies,
            "compressed": self.compressed,
            "with_dictionary": self.with_dictionary,
            "dictionaries": len(self._dictionaries),
            "raw_bytes": self.raw_bytes,
            "stored_bytes": self.stored_bytes,
            "ratio": round(self.raw_bytes / self.stored_bytes, 3) if self.stored_bytes else 1.0,
        }

    def _parameters(self, dictionary_bytes: int) -> zstandard.ZstdCompressionParameters:
        """How a dictionary is prepared: with small tables, where the level asks for speed."""
        usual = _from_level(self.config.level, dict_size=dictionary_bytes)
        if usual.strategy > zstandard.STRATEGY_DFAST:
            return usual
        return _from_level(
            self.config.level,
            dict_size=dictionary_bytes,
            hash_log=min(usual.hash_log, _HASH_LOG),
            chain_log=min(usual.chain_log, _CHAIN_LOG),
        )

    def _is_worth(self, kind: str, body: bytes) -> bool:
        least = max(self.config.threshold, self._thresholds.get(kind, 0))
        return self.config.enabled and len(body) >= least

    def _dictionary_for(self, kind: str, bodies: Iterable[bytes]) -> int:
        """The id of the kind's dictionary; 0 while it has none, when the bodies become samples for one."""
        dictionary_id = self._active.get(kind, 0)
        if not dictionary_id and self.config.dictionary:
            for body in bodies:
                self._sample(kind, body)
        return dictionary_id

    def _counted(self, body: bytes, frame: bytes | None, dictionary_id: int) -> bytes | None:
        """Count a body, and return its frame if that is smaller."""
        if frame is not None and len(frame) >= len(body):
            frame = None
        self.bodies += 1
        self.raw_bytes += len(body)
        self.compressed += frame is not None
        self.with_dictionary += frame is not None and dictionary_id != 0
        self.stored_bytes += len(body if frame is None else frame)
        return frame

    def _sample(self, kind: str, body: bytes) -> None:
        if kind in self._active:
            return
        samples = self._samples.setdefault(kind, [])
        if len(samples) < self.config.dictionary_samples:
            samples.append(body)

    def _compressor(self, dictionary_id: int) -> zstandard.ZstdCompressor:
        made: dict[int, zstandard.ZstdCompressor] = self._local.__dict__.setdefault(
            "compressors", {}
        )
        compressor = made.get(dictionary_id)
        if compressor is None:
            dictionary = self._dictionaries[dictionary_id] if dictionary_id else None
            compressor = zstandard.ZstdCompressor(level=self.config.level, dict_data=dictionary)
            made[dictionary_id] = compressor
        return compressor

    def _decompressor(self, dictionary_id: int) -> zstandard.ZstdDecompressor:
        made: dict[int, zstandard.ZstdDecompressor] = self._local.__dict__.setdefault(
            "decompressors", {}
        )
        decompressor = made.get(dictionary_id)
        if decompressor is None:
            dictionary = self._dictionaries.get(dictionary_id)
            if dictionary_id and dictionary is None:
                raise DictionaryMissingError(dictionary_id)
            decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)
            made[dictionary_id] = decompressor
        return decompressor
