"""Which versions a version stands on."""

from collections.abc import Mapping


def lineage(parent_of: Mapping[int, int], version: int) -> list[int]:
    """The version, its parent, … down to 0. A version of unknown origin (imported) stands on 0."""
    line = [version]
    while line[-1] != 0:
        line.append(min(parent_of.get(line[-1], 0), line[-1] - 1))  # never up: a loop would not end
    return line
