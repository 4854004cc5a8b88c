"""Registry → adapter bank → answers. Imports only `driftline`."""
