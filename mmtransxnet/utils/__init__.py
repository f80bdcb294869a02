"""Utilities for all other subpackages; depends on none of them."""
