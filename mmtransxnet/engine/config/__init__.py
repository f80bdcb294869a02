"""Strict reading of configs and the command line."""
