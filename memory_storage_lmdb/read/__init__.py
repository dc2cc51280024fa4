"""The read path: gets, queries and the change feed, each in one read transaction."""
