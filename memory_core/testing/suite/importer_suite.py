"""``ImporterSuite``: the executable specification of an importer of transcripts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from memory_core.errors import ImportFormatError
from memory_core.importers import Importer
from memory_core.records import Episode
from memory_core.storage import missing_members

__all__ = ["ImporterSuite"]

_HEAD_BYTES = 64 * 1024
# What other programs write; no importer but theirs may take it.
_OTHERS = {
    "empty": b"",
    "spaces": b" \n\n",
    "object": b"{}",
    "array": b"[]",
    "numbers": b"1\n2\n3\n",
    "lines": b'{"a": 1}\n{"a": 2}\n',
    "prose": b"Dear reader,\n",
    "binary": bytes(range(256)),
    "half": b'{"messages": [{"role": "us',
}


class ImporterSuite:
    """Everything an importer must do. Its test file is a subclass with its samples and ``create``.

    Attributes:
        samples: a folder with transcripts of the format, one of each shape that it has. Files named
            ``README.md`` are not transcripts.
    """

    samples: ClassVar[Path]

    def create(self) -> Importer:
        """The importer."""
        raise NotImplementedError

    @pytest.fixture
    def importer(self) -> Importer:
        """The importer, if it has every member."""
        importer = self.create()
        if missing := missing_members(importer, Importer):
            pytest.fail(f"{type(importer).__name__} lacks {', '.join(missing)}", pytrace=False)
        return importer

    def transcripts(self) -> list[Path]:
        """The samples; there must be one."""
        found = [path for path in sorted(self.samples.iterdir()) if path.name != "README.md"]
        if not found:
            pytest.fail(f"put a transcript of the format into {self.samples}", pytrace=False)
        return found

    def test_every_member_is_there(self) -> None:
        missing = missing_members(self.create(), Importer)
        assert not missing, f"{type(self.create()).__name__} lacks {', '.join(missing)}"

    def test_it_has_a_name_and_a_summary(self, importer: Importer) -> None:
        assert importer.name == importer.name.strip().lower() != ""
        assert importer.summary
        assert "\n" not in importer.summary

    def test_its_samples_are_recognised(self, importer: Importer) -> None:
        for path in self.transcripts():
            head = path.read_bytes()[:_HEAD_BYTES]
            assert importer.sniff(head, path), f"{path.name} is not recognised"

    def test_a_head_may_end_anywhere(self, importer: Importer) -> None:
        for path in self.transcripts():
            head = path.read_bytes()[:_HEAD_BYTES]
            for end in range(0, len(head), max(1, len(head) // 50)):
                assert importer.sniff(head[:end], path) in {True, False}

    @pytest.mark.parametrize("other", _OTHERS)
    def test_other_files_are_not_recognised(
        self, importer: Importer, other: str, tmp_path: Path
    ) -> None:
        path = tmp_path / other
        path.write_bytes(_OTHERS[other])
        assert not importer.sniff(_OTHERS[other], path)

    def test_its_samples_are_read(self, importer: Importer) -> None:
        for path in self.transcripts():
            found = list(importer.read(path))
            assert found, f"{path.name} has no episode"
            assert all(isinstance(item, Episode) for item in found)

    def test_reading_again_gives_equal_episodes(self, importer: Importer) -> None:
        """With equal ids, so that a second import changes nothing."""
        for path in self.transcripts():
            assert list(importer.read(path)) == list(self.create().read(path))

    def test_episodes_have_ids_of_their_own(self, importer: Importer) -> None:
        for path in self.transcripts():
            ids = [item.id for item in importer.read(path) if isinstance(item, Episode)]
            assert len(set(ids)) == len(ids)

    def test_the_name_of_a_file_does_not_matter(self, importer: Importer, tmp_path: Path) -> None:
        for path in self.transcripts():
            moved = tmp_path / f"moved-{path.name}"
            moved.write_bytes(path.read_bytes())
            ids = [_id_of(item) for item in importer.read(path)]
            assert [_id_of(item) for item in importer.read(moved)] == ids

    def test_what_is_cut_off_is_an_error_that_names_the_file(
        self, importer: Importer, tmp_path: Path
    ) -> None:
        for path in self.transcripts():
            content = path.read_bytes()
            cut = tmp_path / path.name
            for part in range(1, 8):
                cut.write_bytes(content[: len(content) * part // 8])
                for item in _read_or_failed(importer, cut):
                    assert isinstance(item, Episode | ImportFormatError), item
                    if isinstance(item, ImportFormatError):
                        assert cut.name in str(item)

    def test_errors_are_yielded_where_reading_goes_on(
        self, importer: Importer, tmp_path: Path
    ) -> None:
        for path in self.transcripts():
            cut = tmp_path / path.name
            cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            for item in importer.read(cut, keep_going=True):
                assert isinstance(item, Episode | ImportFormatError), item


def _id_of(item: Episode | ImportFormatError) -> object:
    return item.id if isinstance(item, Episode) else None


def _read_or_failed(importer: Importer, path: Path) -> Iterator[object]:
    try:
        yield from importer.read(path)
    except ImportFormatError as error:
        yield error
