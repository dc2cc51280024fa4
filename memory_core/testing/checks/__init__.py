"""Checks that run for minutes and are commands as well: kills during commits, stale reads, histories."""
