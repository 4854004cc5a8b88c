"""The lines of `make accept`: each runs one item of what Driftline must show, and returns rows of its table."""
