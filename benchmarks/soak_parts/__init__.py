"""The parts of soak.py: a server to be tried, its clients, and what is tried."""
