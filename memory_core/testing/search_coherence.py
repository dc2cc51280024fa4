"""``python -m memory_core.testing.search_coherence``: looks for searches that miss what was acknowledged."""

import sys

from memory_core.testing.checks.search_coherence import SearchReport, SearchRun, main, run

__all__ = ["SearchReport", "SearchRun", "main", "run"]

if __name__ == "__main__":
    sys.exit(main())
