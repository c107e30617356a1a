"""Applications, which may change while the server runs."""
