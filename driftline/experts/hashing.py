"""n-grams as hashes, a whole batch at a time: of characters, and of words.

Guards that a text has the same hashes in every process, on every platform and in any batch: arithmetic on codepoints
modulo 2^64 alone; no `hash()`, no byte order, no Unicode database (save for lower-casing). Nothing loops over n-grams.

    characters or a word c₀ c₁ …    mix(p), p = Σ Kⁱ·cᵢ
    two words                       mix(p₁ + S·p₂)

mix is MurmurHash3's 64-bit finaliser (Appleby 2011): the low bits pick a bucket, so all bits must reach them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["MAX_CHARACTERS", "SIZES", "Grams", "character_grams", "word_grams"]

MAX_CHARACTERS = 10_000
"""What stands behind is not read: it bounds what one text can cost."""
SIZES = (3, 4, 5)

_K = np.uint64(0x9E3779B97F4A7C15)
_S = np.uint64(0xD6E8FEB86659FD93)
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_SHIFT = np.uint64(33)

_BLANK, _JOINED, _ALONE = 0, 1, 2
_ALONE_RANGES = (
    (0x21, 0x26), (0x28, 0x2F), (0x3A, 0x40), (0x5B, 0x5E), (0x60, 0x60), (0x7B, 0x7E),  # ASCII, save ' and _
    (0xA1, 0xA9), (0xAB, 0xB4), (0xB6, 0xB9), (0xBB, 0xBF), (0xD7, 0xD7), (0xF7, 0xF7),  # Latin-1
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF),  # Thai, Lao, Burmese, Khmer: no blanks between words
    (0x200B, 0x2BFF), (0x2E80, 0x312F), (0x3190, 0xA4CF), (0xF900, 0xFAFF),  # symbols; Chinese, Japanese, Yi
    (0xFE00, 0xFE6F), (0xFF00, 0xFF0F), (0xFF1A, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFFFF),  # wide and other forms
    (0x1F000, 0x1FAFF), (0x20000, 0x3FFFF),  # emoji; more Chinese
)  # fmt: skip
_BLANK_RANGES = ((0x00, 0x20), (0x7F, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x202F), (0x205F, 0x205F),
                 (0x3000, 0x3000))  # fmt: skip


def _kinds() -> NDArray[np.uint8]:
    kinds = np.full(0x110000, _JOINED, np.uint8)
    for kind, ranges in ((_ALONE, _ALONE_RANGES), (_BLANK, _BLANK_RANGES)):
        for first, last in ranges:
            kinds[first : last + 1] = kind
    return kinds


_KIND = _kinds()
"""What each codepoint is to a word: between words, part of one, or one by itself."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grams:
    """The n-grams of N texts, one text behind the other; an n-gram stands as often as its text has it."""

    hashes: NDArray[np.uint64]
    """(M,)"""
    ends: NDArray[np.int64]
    """(N,): where each text's hashes end."""


def character_grams(texts: Sequence[str]) -> Grams:
    """All 3-, 4- and 5-grams of characters, those with blanks and with the text's ends (as blanks) included."""
    points, ends = _codepoints(texts)
    left = np.repeat(ends, np.diff(ends, prepend=0)) - np.arange(len(points))  # (P,): characters up to the text's end
    longest = max(SIZES)
    windows = sliding_window_view(np.append(points, np.zeros(longest, np.uint64)), longest)[: len(points)]  # (P, 5)
    sums = np.cumsum(windows * _powers(longest), axis=1)[:, np.array(SIZES) - 1]  # (P, 3): p of what starts here
    return _grouped(sums, left[:, None] >= SIZES, ends)


def word_grams(texts: Sequence[str]) -> Grams:
    """All words, and all pairs of words that follow each other."""
    points, ends = _codepoints(texts)
    kinds = _KIND[points]
    begins = kinds != _BLANK
    begins[1:] &= (kinds[1:] == _ALONE) | (kinds[:-1] != _JOINED)
    starts, places = np.flatnonzero(begins), np.arange(len(points))
    if not len(starts):
        return Grams(hashes=np.zeros(0, np.uint64), ends=np.zeros(len(ends), np.int64))
    within = places - np.maximum.accumulate(np.where(begins, places, 0))  # (P,): the character's place in its word
    weighed = np.where(kinds == _BLANK, 0, points) * _powers(int(within.max()) + 1)[within]
    words = np.add.reduceat(weighed, starts)  # (W,): p of each word; the blanks behind it add nothing
    ends = np.searchsorted(starts, ends)  # (N,): in words
    owners = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))  # (W,)
    valid = np.ones((len(words), 2), np.bool_)
    valid[:, 1] = np.diff(owners, prepend=-1) == 0  # the first word of a text makes no pair with the one before it
    return _grouped(np.stack([words, np.roll(words, 1) + _S * words], axis=1), valid, ends)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each bit of the result depends on every bit of the value."""
    for factor in _MIX:
        values = (values ^ (values >> _SHIFT)) * factor
    return values ^ (values >> _SHIFT)


def _codepoints(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """(P,) codepoints of all texts, lower-cased, shortened, each between two blanks; (N,) where each text ends."""
    padded = [f" {text[:MAX_CHARACTERS].lower()} " for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), "<u4")
    return points.astype(np.uint64), np.cumsum([len(text) for text in padded], dtype=np.int64)


def _powers(count: int) -> NDArray[np.uint64]:
    """K⁰ … K^(count-1), modulo 2^64."""
    powers = np.full(count, _K)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


def _grouped(sums: NDArray[np.uint64], valid: NDArray[np.bool_], ends: NDArray[np.int64]) -> Grams:
    """The valid ones of (P, k) sums, in the order of the places P, which end at `ends` for each text."""
    counts = np.append(0, np.cumsum(valid.sum(axis=1)))
    return Grams(hashes=mix(sums[valid]), ends=counts[ends])
