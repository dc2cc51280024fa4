"""The LMDB backend and the adaptive cache."""

from memory_core.moved import find_moved
from memory_storage_lmdb.moved import PATHS as _MOVED

find_moved(__name__, _MOVED)
