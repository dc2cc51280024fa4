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


TOGETHER = (
    "It collects the calls of concurrent tasks, reads a key that several ask for once, writes one that "
    "several put once, and runs the rest as one group. Puts are grouped here as well, but each is kept, "
    "in the change feed, too."
)


REASONS = (
    (("cold",), OPENING),
    (("YCSB F",), CHANGES),
    (("related",), GRAPH),
    (("log",), DOCUMENT),
    (("put", "batch put", "8 tasks", "64 tasks", "YCSB A"), WRITES),
    (("",), OBJECTS),
)
"""Reasons by what the names of paths begin with; the first one counts."""


def reason(path: str, peer: str) -> str:
    """Why this peer is ahead on this path."""
    if peer == "LangGraph" and path.endswith("64 tasks") and not path.startswith("YCSB F"):
        return TOGETHER
    return next(text for beginnings, text in REASONS if path.startswith(beginnings))


MISSED = {
    "P99": (
        "P99: a read that need not wait does not hand over either. A task goes on until others have not run "
        "for 5 ms, which is looked at after each 16 calls (`memory_core/backend/turns.py`), so with 64 tasks "
        "that never pause, one read in some hundred waits for 63 such turns: P50 is far below a millisecond, "
        "and P99 some hundred. With turns of three calls and 0.5 ms, in alternation on 2,000 episodes and "
        "busy cores, P99 of C was 38 to 119 ms instead of 222 to 380 (LMDB) and 124 to 258 instead of 386 to "
        "647 (Turso file), at no lower rate. That of E did not change: a page waits for those of 63 others. "
        "In F, changes of one popular record follow each other, a durable commit each."
    ),
    "batches": (
        "Batches: what a batch saves is the wait for the disk and the change of threads, once for 100 "
        "episodes instead of each time. What remains is compressing and inserting, a processor's work "
        "which is the same for both: the faster the disk, the less there is to save."
    ),
    "cached read": (
        "Cached reads: each asks the store first whether anything was written since, in any process; on a "
        "file of SQLite that is a system call of 2 to 4 µs on an idle machine."
    ),
    "memory": "Memory: see the table of mixed loads.",
    "statements": (
        "Statements: each text is prepared once for each connection, so a short run prepares a larger share."
    ),
    "agent": "Hits: the rate depends on how often the agent reads again; see caching.md.",
}


def why_missed(claim: str) -> str:
    """Why a claim is not met."""
    return next(text for part, text in MISSED.items() if part in claim)
