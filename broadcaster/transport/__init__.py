"""Sockets: acceptor, HTTP/1.1, WebSocket frames, the HTTP fallback."""
