"""Kafka → buffer: decoding, dead letters, joining labels. Imports only `driftline`."""
