"""Channels in NATS JetStream: shared by all nodes that use it, and kept on its disk."""
