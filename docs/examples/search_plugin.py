"""A search index in one file, and an embedder: the example of ``docs/writing_an_index.md``."""

import asyncio
import os
from collections import Counter
from hashlib import blake2b
from uuid import UUID

import msgspec
from attrs import frozen

from memory_core import hookimpl
from memory_core.following import Bookmark
from memory_core.hookspecs import EmbedderFactory, SearchFactory
from memory_core.search import Document, DocumentText, ReferenceIndex

__all__ = ["FileIndex", "LettersEmbedder", "memory_embedder_factories", "memory_search_factories"]


@frozen(kw_only=True)
class NoOptions:
    """Neither the index nor the embedder has options."""


class FileIndex:
    """Searches in memory, and keeps its documents in a file, which is read once and written as a whole."""

    def __init__(self, folder, declarations):
        # Documents for other declarations have other texts: they get a file of their own.
        self.path = folder and folder / f"{declarations.digest.hex()}.documents"
        self.words = ReferenceIndex()
        self.documents, self.known, self.is_read = {}, None, False

    @classmethod
    def create(cls, folder, *, config, declarations):
        del config
        return cls(folder, declarations)  # nothing is opened before the first use

    async def bookmark(self):
        await self.read()
        return self.known

    async def apply(self, documents, removed, bookmark):
        await self.read()
        await self.words.apply(documents, removed, bookmark)
        self.documents |= {(one.kind, one.id): one for one in documents}
        for key in removed:
            self.documents.pop(key, None)
        if bookmark is not None:
            # What was applied since the last bookmark is kept together with this one.
            self.known = bookmark
            if self.path:
                self.write(bookmark)

    async def clear(self):
        await self.aclose()
        self.is_read = True
        if self.path:
            self.path.unlink(missing_ok=True)

    async def search(self, request):
        await self.read()
        return await self.words.search(request)

    def stats(self):
        return {"documents": len(self.documents)}

    async def aclose(self):
        self.documents, self.known, self.is_read = {}, None, False
        await self.words.clear()

    async def read(self):
        # Once: what other processes commit comes through the change feed, to each process by itself.
        if self.is_read:
            return
        self.is_read = True
        if not self.path or not self.path.exists():
            return
        try:
            known, rows = msgspec.msgpack.decode(self.path.read_bytes())
            documents, self.known = [unpacked(row) for row in rows], Bookmark(*known)
        except (OSError, ValueError, TypeError):
            return  # it is damaged: without a bookmark it is built again
        await self.words.apply(documents, (), None)
        self.documents = {(one.kind, one.id): one for one in documents}

    def write(self, bookmark):
        known = bookmark.position, bookmark.change, bookmark.mark
        whole = known, [packed(one) for one in self.documents.values()]
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        growing = self.path.with_suffix(f".{os.getpid()}-{id(self)}")
        growing.write_bytes(msgspec.msgpack.encode(whole))
        growing.chmod(0o600)  # it has the words of the records
        growing.replace(self.path)  # another process reads the earlier file or this one


def packed(one):
    texts = [(text.name, text.weight, text.terms) for text in one.texts]
    return one.kind, one.id.bytes, one.found_kind, one.found_id.bytes, texts, dict(one.values)


def unpacked(row):
    kind, own, found_kind, found, texts, values = row
    kept = tuple(DocumentText(name, weight, tuple(terms)) for name, weight, terms in texts)
    several = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Document(kind, UUID(bytes=own), found_kind, UUID(bytes=found), kept, several)


class LettersEmbedder:
    """Texts with the same sequences of three letters are alike: it forgives other endings."""

    model = "letters:256"  # another number of dimensions is another model

    @classmethod
    def create(cls, *, config):
        del config
        return cls()

    async def embed(self, texts, purpose):
        del purpose  # some models embed questions and documents differently
        # What computes for long does so in a thread: the event loop belongs to all.
        return await asyncio.to_thread(lambda: [self.vector(text) for text in texts])

    def vector(self, text):
        padded = f"  {text.lower()}  ".encode("utf-8", "replace")
        parts = Counter(padded[at : at + 3] for at in range(len(padded) - 2))
        found = [0.0] * 256
        for part, count in parts.items():
            found[blake2b(part, digest_size=1).digest()[0]] += count**0.5
        return found

    async def aclose(self):
        pass


@hookimpl
def memory_search_factories():
    here = __name__
    return {
        "file": SearchFactory(
            target=f"{here}:FileIndex", config=f"{here}:NoOptions", summary="in one file"
        )
    }


@hookimpl
def memory_embedder_factories():
    here = __name__
    return {
        "letters": EmbedderFactory(
            target=f"{here}:LettersEmbedder",
            config=f"{here}:NoOptions",
            summary="by sequences of letters",
        )
    }
