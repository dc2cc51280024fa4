"""The write path: batches are encoded, and applied in groups on the writer thread."""
