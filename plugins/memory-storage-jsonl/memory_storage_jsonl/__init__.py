"""A JSON-lines backend for memory-core, found by its entry point: ``open_memory("jsonl:PATH")``."""
