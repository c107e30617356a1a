"""Subscriptions over all nodes, and the leases they hang on."""
