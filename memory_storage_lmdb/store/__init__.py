"""What the bytes of a store mean: keys, layout, catalog and journal."""
