"""``python -m memory_core.cli``."""

from memory_core.cli import main

main()
