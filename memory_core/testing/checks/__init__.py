"""Checks that run for minutes, also as commands: kills during commits, and stale reads."""
