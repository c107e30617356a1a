"""Load and comparison runs."""
