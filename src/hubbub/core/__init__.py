"""What a hub is made of, as pure data structures: channels, outboxes, limits, timers."""
