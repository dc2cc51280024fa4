"""``python -m memory_core.testing.linearizability``: results that no order of all calls explains."""

import sys

from memory_core.testing.checks.linearizability import (
    LinearizabilityReport,
    LinearizabilityRun,
    check,
    main,
)

__all__ = ["LinearizabilityReport", "LinearizabilityRun", "check", "main"]

if __name__ == "__main__":
    sys.exit(main())
