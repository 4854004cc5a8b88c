"""Measured claims: each script prints a table and writes JSON with commit, machine and command."""
