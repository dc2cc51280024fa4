"""The LMDB backend and the adaptive cache."""

from memory_core.moved import find_moved
from memory_storage_lmdb import moved as _moved

find_moved(__name__, _moved.PATHS, _moved.NAMES)
