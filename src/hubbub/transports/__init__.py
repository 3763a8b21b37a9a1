"""How bytes come and go: one port, WebSocket and HTTP on it."""
