"""Servers side by side in one run: ``python -m legato.benchmarks.versus``."""
