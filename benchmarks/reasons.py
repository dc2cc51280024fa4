"""Why a peer is ahead on a path: what `benchmarks.report` says where it is."""

from __future__ import annotations

OBJECTS = (
    "It returns plain dicts and checks nothing; a store here checks a checksum, decompresses, and "
    "makes an object with types of each step that is looked at."
)
CHANGES = (
    "It reads and writes without looking whether another task has written in between, so tasks that "
    "change one document may lose updates; `update` expects what it has read, and tasks that change "
    "one record queue."
)
OPENING = (
    "It opens a file and no more. Over half of the time here goes to finding plugins in the metadata of "
    "all installed distributions, which each opening does (profiled with 160 of them); the rest checks "
    "the file and what kinds it declares, and starts and ends the threads."
)
GRAPH = (
    "It runs one recursive statement on the caller's thread, over edges that are no records of their "
    "own; a store here reads the edges of each distance, then the episodes with their paths."
)
WRITES = (
    "It writes one row; a store here also compresses, and writes the change feed, the entries of its "
    "indexes and the counts, on a thread of its own."
)
DOCUMENT = (
    "It rewrites the document whole, which is cheap while that is short: see *log at 1000*. A step "
    "logged here is a record of its own, checked against its episode in the same transaction."
)


def reason(path: str) -> str:
    """Why a peer is ahead on this path."""
    if path == "cold":
        return OPENING
    if path.startswith("YCSB F"):
        return CHANGES
    if path == "related":
        return GRAPH
    if path.startswith("log"):
        return DOCUMENT
    if path.startswith(("put", "batch put", "8 tasks", "64 tasks", "YCSB A")):
        return WRITES
    return OBJECTS
