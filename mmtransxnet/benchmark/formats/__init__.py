"""Metric, size, speed and memory of models in every exported format."""
