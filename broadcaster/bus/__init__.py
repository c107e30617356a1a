"""How messages reach every node."""
