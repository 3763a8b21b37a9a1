"""The Python client: connect, join, send, and come back after a cut."""
