"""Streamed replies: token log, healing of gaps, snapshots."""
