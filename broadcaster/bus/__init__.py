"""The bus: carries messages to every node."""
