"""Loops, processes and resuming."""
