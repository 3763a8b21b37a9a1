"""Channels in Redis: shared by all nodes that use it, and as durable as it is configured to be."""
