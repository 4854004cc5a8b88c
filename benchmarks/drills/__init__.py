"""Drills: the full-size must-show items that need real servers, real processes and time, one module each.

Each has `run(...)`, which returns figures as a JSON-ready dict, and a command line that prints them:
`python -m benchmarks.drills.NAME [--quick]`.
"""
