"""Channels in one SQLite file: what was acknowledged survives the process, and, where asked, the power cut."""
