"""What a record walks through on its way to a database and back, over any driver."""
