"""Several processes on one port: who starts them, and starts them again."""
