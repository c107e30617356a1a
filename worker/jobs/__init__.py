"""The job stream: claim, lease, cancel, dead letters."""
