"""The way in: operations are staged, and applied in groups on the writer's thread."""
