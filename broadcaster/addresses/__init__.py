"""The addresses of clients: who is behind a proxy, and what one address may do."""
