"""Checks before a run and of its data."""
