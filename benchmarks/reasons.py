"""Why a peer is ahead on a path: what `benchmarks.report` says where it is."""

from __future__ import annotations

OBJECTS = (
    "It returns plain dicts and checks nothing; a store here checks a checksum, decompresses, and "
    "makes an object with types of each step that is looked at."
)
CHANGES = (
    "It reads and writes without looking whether another task has written in between, so tasks that "
    "change one document may lose updates; `update` expects what it has read, and each change is kept, in "
    "the change feed, too."
)
OPENING = (
    "It opens a file and no more. An opening here also finds the plugins among the installed "
    "distributions, checks the file and what kinds it declares, and starts and ends the threads."
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
    if peer == "LangGraph" and "64 tasks" in path and not path.startswith("YCSB F"):
        return TOGETHER
    return next(text for beginnings, text in REASONS if path.startswith(beginnings))


MISSED = {
    "P99": (
        "P99: 64 tasks that never pause use all the time of the processor, so a call waits for those of the "
        "others. Tasks that read without waiting hand over after half a millisecond, and one of them goes "
        "on in each tick of the event loop (`memory_core/backend/turns.py`): a page of 10 takes about that "
        "long, and the 64th as many times. A write waits for the commit in flight and for its own, in which "
        "all that came meanwhile are written, changes of one record on top of each other: about 30 episodes "
        "of 12 kB, compressed, indexed and synced. On a busy machine these times multiply."
    ),
    "batches": (
        "Batches: what a batch saves is the wait for the disk and the change of threads, once for 100 "
        "episodes instead of each time. What remains is a processor's work, which is the same for both: "
        "the faster the disk, the less there is to save. On a Turso file, index entries take 38 % of it (7.6 "
        "of 24 are of the metadata), compressing 19 %, serializing 14 %, the row with its change and counts "
        "11 %, values of indexes 7 %, copying the log 7 %."
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
