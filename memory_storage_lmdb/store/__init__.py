"""The on-disk format of a store: keys, layout, catalog and journal."""
