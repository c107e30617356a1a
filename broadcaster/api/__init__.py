"""The Pusher HTTP API and the chat endpoints."""
