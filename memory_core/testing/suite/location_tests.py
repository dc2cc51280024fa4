"""Tests of locations: what is a store, what is not, and what may be made there."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Awaitable
from pathlib import Path

import pytest

from memory_core.errors import (
    MemoryCoreError,
    NotAStoreError,
    StoreNotFoundError,
)
from memory_core.memory.opening import open_memory
from memory_core.storage import Capability, Storage
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.data.samples import episode
from memory_core.testing.suite.harness import (
    Harness,
    Opener,
    needs,
    only_if,
    overrides,
    put,
    stored,
)

__all__ = ["LocationTests", "contents"]

# Whether a store may be created, and is only read.
_NOT_MADE = ((False, False), (True, True))

in_files = only_if(lambda suite: suite.has_files and suite.declares(Capability.DURABLE))


class LocationTests(Harness):
    """A location has a store, or something else that stays as it is, or nothing."""

    @needs(Capability.DURABLE)
    async def test_a_missing_store_is_not_made_where_none_may_be(
        self, opener: Opener, tmp_path: Path
    ) -> None:
        before = contents(tmp_path)
        for create, read_only in _NOT_MADE:
            with pytest.raises(StoreNotFoundError):
                await opener(create=create, read_only=read_only)
        assert contents(tmp_path) == before

    @needs(Capability.DURABLE)
    async def test_an_existing_store_is_opened_where_none_may_be_made(self, opener: Opener) -> None:
        store = await opener()
        await put(store, episode(1))
        await store.aclose()
        again = await opener(create=False)
        assert await stored(again, episode(1))
        await put(again, episode(2))
        assert await stored(again, episode(2))

    @only_if(lambda suite: overrides(suite, "url_of") and suite.declares(Capability.DURABLE))
    async def test_its_url_opens_it(self, location: str) -> None:
        url = self.url_of(location)
        async with open_memory(url, cache=None) as memory:
            await memory.store_episode(episode(1))
        async with open_memory(url, cache=None, create=False) as memory:
            assert await memory.get_episode(episode(1).id) == episode(1)

    @in_files
    async def test_the_file_of_another_program_stays_as_it_is(
        self, opener: Opener, location: str
    ) -> None:
        path = self.path_of(location)
        beside = path.parent / "beside"
        for content in (b"Dear reader,\n", b"\0" * 8_192, b"x"):
            path.write_bytes(content)
            beside.write_bytes(content)
            before = contents(path.parent)
            for create, read_only in ((True, False), *_NOT_MADE):
                with pytest.raises(NotAStoreError) as caught:
                    await opener(create=create, read_only=read_only)
                assert str(path) in str(caught.value)
                assert contents(path.parent) == before

    @in_files
    async def test_an_empty_file_is_not_a_store(self, opener: Opener, location: str) -> None:
        path = self.path_of(location)
        path.touch()
        before = contents(path.parent)
        for create, read_only in _NOT_MADE:
            with pytest.raises(NotAStoreError):
                await opener(create=create, read_only=read_only)
            assert contents(path.parent) == before

    @in_files
    async def test_a_store_that_was_cut_to_nothing_is_not_a_new_one(
        self, opener: Opener, location: str
    ) -> None:
        path = Path(location)
        for size in (0, 1):
            self.path_of(location)
            store = await opener()
            await put(store, *map(episode, range(20)))
            await store.aclose()
            cut = _largest_file(path, self.lock_files)
            os.truncate(cut, size)
            before = contents(path.parent)
            for create, read_only in _NOT_MADE:
                refusal = await _refusal(opener(create=create, read_only=read_only))
                assert refusal is not None, f"opened although {cut} was cut to {size} bytes"
                assert contents(path.parent) == before

    @in_files
    async def test_a_missing_file_is_a_new_store_also_beside_an_index(
        self, opener: Opener, location: str
    ) -> None:
        path = self.path_of(location)
        index = path.with_name(f"{path.name}.search")
        index.mkdir()
        await put(await opener(), episode(1))
        assert path.exists()
        assert index.is_dir()

    @in_files
    async def test_a_link_to_nothing_is_a_new_store(self, opener: Opener, location: str) -> None:
        path = self.path_of(location)
        target = path.parent / "target"
        path.symlink_to(target)
        with pytest.raises(StoreNotFoundError):
            await opener(create=False)
        store = await opener()
        await put(store, episode(1))
        assert path.is_symlink()
        assert target.exists()
        assert str(target) in (await store.stats()).location
        await store.aclose()
        assert await stored(await opener(create=False), episode(1))

    @in_files
    async def test_a_store_has_one_location(
        self, opener: Opener, location: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = self.path_of(location)
        store = await opener()
        absolute = (await store.stats()).location
        await store.aclose()
        assert str(path) in absolute
        monkeypatch.chdir(path.parent)
        again = await self.open(path.name, context=kit_context())
        try:
            assert (await again.stats()).location == absolute
        finally:
            await again.aclose()

    @in_files
    async def test_files_are_for_their_owner_alone(self, opener: Opener, location: str) -> None:
        path = self.path_of(location)
        before = os.umask(0)
        try:
            store = await opener()
            await put(store, *map(episode, range(20)))
            modes = _modes(path.parent)
            await store.aclose()
            modes |= _modes(path.parent)
        finally:
            os.umask(before)
        assert modes
        assert not {name: oct(mode) for name, mode in modes.items() if mode & 0o077}

    @only_if(
        lambda suite: (
            suite.has_files and not suite.replaces_files and suite.declares(Capability.DURABLE)
        )
    )
    async def test_existing_files_keep_their_permissions(
        self, opener: Opener, location: str
    ) -> None:
        path = self.path_of(location)
        store = await opener()
        await put(store, episode(1))
        await store.aclose()
        for file in (path, *path.rglob("*")):
            file.chmod(0o770 if file.is_dir() else 0o660)
        before = _modes(path.parent)
        store = await opener()
        await put(store, episode(2))
        assert _modes(path.parent).items() >= before.items()

    @classmethod
    def path_of(cls, location: str) -> Path:
        """The path of a file store, with nothing there, and nothing beside it."""
        path = Path(location)
        assert path.is_absolute(), f"{cls.__name__} has no files: set has_files = False"
        for found in path.parent.glob(f"{path.name}*"):
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink()
        return path


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Every file and folder in a folder, and the bytes of each file."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def _modes(folder: Path) -> dict[Path, int]:
    return {path: stat.S_IMODE(path.lstat().st_mode) for path in folder.rglob("*")}


async def _refusal(opening: Awaitable[Storage]) -> MemoryCoreError | None:
    try:
        await opening
    except MemoryCoreError as error:
        return error
    return None


def _largest_file(path: Path, without_data: tuple[str, ...]) -> Path:
    files = [
        file
        for file in (path, *path.rglob("*"))
        if file.is_file() and not file.name.endswith(without_data or "\0")
    ]
    return max(files, key=lambda file: file.stat().st_size)
