"""Metrics of the worker."""
