"""Buffer → replay → update → gate → registry, on a schedule. Imports only `driftline`."""
