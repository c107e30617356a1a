"""The worker: jobs, model providers, the fenced token log."""
