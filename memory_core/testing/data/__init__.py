"""The kit's test data: kinds, records, and strategies that draw batches and queries."""
