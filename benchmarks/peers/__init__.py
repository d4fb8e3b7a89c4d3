"""Tidemark beside what a user could pick instead: `python -m benchmarks.peers`, or `make bench-peers`."""
