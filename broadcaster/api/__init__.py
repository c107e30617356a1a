"""HTTP: the Pusher HTTP API, and the chat endpoints."""
