"""Metrics and loop delay."""
