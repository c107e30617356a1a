"""Stored conversations: read, renamed and deleted in the worker's database."""
