"""The broadcaster: WebSocket server, fan-out, and the Pusher HTTP API."""
