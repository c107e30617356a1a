"""The WebSocket server: sockets, the Pusher HTTP API, fan-out."""
