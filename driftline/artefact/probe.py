"""The probe: fixed texts whose logits every manifest carries, so that a replica sees whether it computes the same."""

__all__ = ["PROBE_TEXTS"]

PROBE_TEXTS: tuple[str, ...] = (
    "The delivery was two days late, but the parcel arrived undamaged and the support answered within an hour.",
    "ok",
    "Absolutely love it!!! Best purchase of the year :-)",
    "I asked for a refund on 2026-03-14 (order #48213) and nobody has written back since.",
    "Der Akku hält kaum drei Stunden, das Display dagegen ist großartig.",
    "画面はきれいですが、音が小さすぎます。 👍🏽",
    "def mean(values): return sum(values) / len(values)  # https://example.org/?q=a%20b",
    "not bad, not good, not cheap, not worth returning, and in the end not something I would recommend to a friend who "
    "needs it every day, because after a month of use the hinge is loose, the manual is gone and the colour has faded",
)
"""Eight texts: long and short, plain and noisy, other scripts, code. Never change one: manifests carry their logits."""
