"""What people who build on Hubbub need to test with: a fake clock, an in-memory hub, engine contracts."""
