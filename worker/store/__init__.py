"""Conversations in a database."""
