"""Compares servers in one run: ``python -m legato.benchmarks.versus``."""
