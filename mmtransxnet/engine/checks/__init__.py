"""What is checked before a run and of its data."""
