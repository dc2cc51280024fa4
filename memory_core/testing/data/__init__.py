"""What the kit tests with: kinds, records, and strategies that draw batches and queries."""
