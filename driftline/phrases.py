"""Figures as people read them. Pure."""


def percent(share: float | None) -> str:
    """A share in 0..1 as `71.8 %`, `–` if there is none."""
    return "–" if share is None else f"{100 * share:.1f} %"


def count_of(n: int, noun: str) -> str:
    """`1 example`, `12,500 examples`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
