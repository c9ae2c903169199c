"""Benchmarks: each prints a table, can write JSON, and says how to run it with --help."""
