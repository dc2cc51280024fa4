"""How records get in: batches are encoded, and applied in groups on the writer's thread."""
