"""The driver of local files, through aiosqlite."""
