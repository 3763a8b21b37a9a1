"""What people who build on Hubbub need to test with: a clock that they turn, and the contract of engines as tests."""
