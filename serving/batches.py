"""Which waiting rows go into the next micro-batch. Pure: the same queue gives the same batch.

Fair: the oldest row is always in it, so nobody starves. Thrifty: its companions are those nearest in length, because
a batch is padded to its longest row.
"""

from collections.abc import Sequence

WINDOW_ROWS = 256


def choose_rows(lengths: Sequence[int], budget_tokens: int) -> list[int]:
    """Indices of the next batch's rows, by rising length (ties: oldest first).

    `lengths` are the token counts of the queue's head, oldest first, at least one. The padded batch (rows times
    longest) stays within `budget_tokens`, unless the oldest row alone exceeds it. Rows that fit together are never
    split.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index])  # stable
    first = last = order.index(0)
    width = lengths[0]
    while first > 0 and (last - first + 2) * width <= budget_tokens:
        first -= 1
    while last + 1 < len(order) and (last - first + 2) * lengths[order[last + 1]] <= budget_tokens:
        last += 1
    return order[first : last + 1]
