"""The text of every statement on the stored tables: schema, rows, queries. Nothing here awaits."""

from memory_storage_turso.sql.queries import count_statement, order_value, page_statement

__all__ = ["count_statement", "order_value", "page_statement"]
