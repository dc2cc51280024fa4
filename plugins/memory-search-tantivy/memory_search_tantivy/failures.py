"""What tantivy raises, as one exception: it has none of its own, and panics where files are damaged."""

from __future__ import annotations

import errno
import re
from collections.abc import Generator
from contextlib import contextmanager

import msgspec

__all__ = ["FilesError", "using_files"]

_FAILURES = (ValueError, OSError, LookupError, msgspec.MsgspecError)
_CODE = re.compile(r"(?:os error|code:) (\d+)")


class FilesError(Exception):
    """The files of an index are damaged, gone, or cannot be written.

    Attributes:
        code: the ``errno``, as far as it can be told.
        gone: whether files are missing: their folder may have been deleted.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.code: int | None = error.errno if isinstance(error, OSError) else None
        if self.code is None and (found := _CODE.search(str(error))):
            self.code = int(found[1])
        self.gone = self.code == errno.ENOENT or "FileDoesNotExist" in str(error)


@contextmanager
def using_files() -> Generator[None]:
    """Translate what is raised where files of an index are read or written.

    Raises:
        FilesError: in place of tantivy's errors.
    """
    try:
        yield
    except FilesError:
        raise
    except BaseException as error:
        # A panic is not an Exception, and its class has no public name.
        if not isinstance(error, _FAILURES) and type(error).__name__ != "PanicException":
            raise
        raise FilesError(error) from error
