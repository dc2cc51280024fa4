"""The path of a record to a database and back, over any driver."""
