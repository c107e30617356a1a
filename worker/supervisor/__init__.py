"""Monitoring and control of worker processes."""
