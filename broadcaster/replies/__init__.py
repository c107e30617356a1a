"""Streamed replies: their log, healing of gaps, snapshots."""
