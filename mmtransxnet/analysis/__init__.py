"""Analysis of models."""
