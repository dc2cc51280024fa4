"""Checks that run for minutes and are commands as well: kills during commits, and stale reads."""
