"""The wire protocol as pure functions and values: bytes in, events out, no clock and no socket."""
