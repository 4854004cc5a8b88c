"""How neighbouring segments are merged: pure arithmetic on the accuracy matrix."""

from collections.abc import Sequence

from driftline.buffer.exams import Cell


def pairs(count: int) -> list[list[int]]:
    """[0, 1], [2, 3], …; the last one stays alone if the count is odd."""
    return [list(range(start, min(start + 2, count))) for start in range(0, count, 2)]


def merge_columns(cells: Sequence[Cell], groups: Sequence[Sequence[int]]) -> list[Cell]:
    """One row of the matrix after merging its columns by group: sums of correct and n, without groups beyond it."""
    merged: list[Cell] = []
    for group in groups:
        if group[-1] >= len(cells):
            break
        known = [cell for cell in (cells[column] for column in group) if cell is not None]
        merged.append((sum(c for c, _ in known), sum(n for _, n in known)) if known else None)
    return merged
