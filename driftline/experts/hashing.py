"""n-grams as hashes, a whole batch at a time: of characters, and of words.

Guards that a text has the same hashes in every process, on every platform and in any batch: arithmetic on codepoints
modulo 2^64 alone; no `hash()`, no byte order, no Unicode database (save for lower-casing). Nothing loops over n-grams,
and the texts are turned into codepoints once for both.

    characters or a word c₀ c₁ …    mix(p), p = Σ Kⁱ·cᵢ
    two words                       mix(p₁ + S·p₂)

mix is MurmurHash3's 64-bit finaliser (Appleby 2011): the low bits pick a bucket, so all bits must reach them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_CHARACTERS", "SIZES", "Characters", "Grams", "character_grams", "characters", "word_grams"]

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
class Characters:
    """The characters of N texts, one text behind the other: lower-cased, shortened, each text between two blanks."""

    points: NDArray[np.uint64]
    """(P,) codepoints."""
    owners: NDArray[np.uint32]
    """(P,): which text each is of."""
    left: NDArray[np.int64]
    """(P,): how many there are from this one to its text's end, itself included."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grams:
    """The n-grams of N texts, in any order; an n-gram stands as often as its text has it."""

    hashes: NDArray[np.uint64]
    """(M,)"""
    owners: NDArray[np.uint32]
    """(M,): which text each is of."""


def characters(texts: Sequence[str]) -> Characters:
    """What n-grams are taken of."""
    padded = [f" {text[:MAX_CHARACTERS].lower()} " for text in texts]
    points = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    sizes = np.array([len(text) for text in padded], np.int64)
    owners = np.repeat(np.arange(len(texts), dtype=np.uint32), sizes)
    return Characters(points=points, owners=owners, left=np.cumsum(sizes)[owners] - np.arange(len(points)))


def character_grams(read: Characters) -> Grams:
    """All 3-, 4- and 5-grams of characters, those with blanks and with the text's ends (as blanks) included."""
    count, longest = len(read.points), max(SIZES)
    ahead = np.append(read.points, np.zeros(longest, np.uint64))
    sums = read.points.copy()  # (P,): p of the n-gram that starts here, one character longer each turn
    hashes, owners = [], []
    for size, power in enumerate(_powers(longest)[1:], start=2):
        sums += ahead[size - 1 : size - 1 + count] * power
        if size in SIZES:
            inside = read.left >= size
            hashes.append(sums[inside])
            owners.append(read.owners[inside])
    return Grams(hashes=mix(np.concatenate(hashes)), owners=np.concatenate(owners))


def word_grams(read: Characters) -> Grams:
    """All words, and all pairs of words that follow each other."""
    kinds = _KIND[read.points.astype(np.intp)]
    begins = kinds != _BLANK
    begins[1:] &= (kinds[1:] == _ALONE) | (kinds[:-1] != _JOINED)
    starts = np.flatnonzero(begins)  # (W,)
    if not len(starts):
        return Grams(hashes=np.zeros(0, np.uint64), owners=np.zeros(0, np.uint32))
    lengths = np.diff(starts, append=len(kinds))  # (W,): the blanks behind it included
    within = np.arange(starts[0], len(kinds)) - np.repeat(starts, lengths)  # the character's place in its word
    letters = np.where(kinds[starts[0] :] == _BLANK, 0, read.points[starts[0] :])
    words = np.add.reduceat(letters * _powers(int(lengths.max()))[within], starts - starts[0])  # (W,): p of each word
    owners = read.owners[starts]
    second = np.flatnonzero(owners[1:] == owners[:-1]) + 1  # the first word of a text makes no pair with another's last
    pairs = words[second - 1] + _S * words[second]
    return Grams(hashes=mix(np.concatenate([words, pairs])), owners=np.concatenate([owners, owners[second]]))


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each bit of the result depends on every bit of the value."""
    mixed, shifted = values.copy(), np.empty_like(values)
    for factor in _MIX:
        mixed ^= np.right_shift(mixed, _SHIFT, out=shifted)
        mixed *= factor
    mixed ^= np.right_shift(mixed, _SHIFT, out=shifted)
    return mixed


def _powers(count: int) -> NDArray[np.uint64]:
    """K⁰ … K^(count-1), modulo 2^64."""
    powers = np.full(count, _K)
    powers[:1] = 1
    return np.multiply.accumulate(powers)
