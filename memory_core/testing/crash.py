"""``python -m memory_core.testing.crash``: kills a writing process again and again, and looks for losses."""

import sys

from memory_core.testing.checks.crash import CrashReport, crash, main

__all__ = ["CrashReport", "crash", "main"]

if __name__ == "__main__":
    sys.exit(main())
