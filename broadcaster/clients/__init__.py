"""Clients of any transport: admission, commands in order, liveness, drain."""
