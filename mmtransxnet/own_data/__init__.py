"""Data of one's own: read in any usual layout, converted, and a config."""
