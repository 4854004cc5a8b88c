"""Driftline keeps a text model current with a live stream. Start at docs/architecture.md."""

__version__ = "0.1.0"
