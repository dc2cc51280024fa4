"""How records get out: gets, queries and the change feed, each in one read transaction."""
