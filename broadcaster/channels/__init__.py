"""Channels on this node: fan-out, presence, cached events, counts, watchlists."""
