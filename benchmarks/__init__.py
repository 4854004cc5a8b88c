"""Measured claims: each script prints a table and writes JSON with commit, machine and command."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; before torch is imported
