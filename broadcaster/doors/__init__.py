"""Doors: replies over HTTP, in the protocols of front ends that people already have."""
