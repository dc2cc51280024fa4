"""``python -m memory_core.testing.staleness``: looks for reads that are older than what was acknowledged."""

import sys

from memory_core.testing.checks.staleness import StalenessReport, StalenessRun, main, run

__all__ = ["StalenessReport", "StalenessRun", "main", "run"]

if __name__ == "__main__":
    sys.exit(main())
