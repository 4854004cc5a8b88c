"""Which buckets of a table of weights texts fall into, by the hashes of their n-grams.

Guards that a text has the same buckets in the same order whatever stands beside it, and so the same sums of weights: a
sparse product adds them one after the other, as they stand here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from driftline.experts.block import Block
from driftline.experts.hashing import Characters, Grams, characters

__all__ = ["Buckets", "sizes", "touched"]


@dataclass(frozen=True, slots=True)
class Buckets:
    """A reading of a block (`Block.read`), for a table of `count` buckets, a power of two up to 2^31."""

    grams: Callable[[Characters], Grams]
    count: int

    def __call__(self, block: Block) -> csr_array:
        """(N, B): 1 in each bucket that one of the text's n-grams falls into, ascending."""
        found = self.grams(block.read(_characters))
        kind: Any = np.uint32 if len(block) * self.count <= 1 << 32 else np.uint64  # half as wide sorts twice as fast
        keys = (found.hashes & np.uint64(self.count - 1)).astype(kind)
        keys += found.owners.astype(kind) * kind(self.count)  # text by text, and in each of them bucket by bucket
        keys.sort()
        new = np.ones(len(keys), np.bool_)
        np.not_equal(keys[1:], keys[:-1], out=new[1:])
        keys = keys[new]
        starts = np.searchsorted(keys, np.arange(len(block), dtype=kind) * kind(self.count))
        places = (keys & kind(self.count - 1)).astype(np.int32)
        ends = np.append(starts, len(keys)).astype(np.int32)
        return csr_array((np.ones(len(keys), np.float32), places, ends), shape=(len(block), self.count))


def sizes(texts: csr_array) -> NDArray[np.float32]:
    """(N, 1): how large each of a text's ones has to be for a norm of 1."""
    counts = np.maximum(np.diff(texts.indptr), 1)[:, None]
    found: NDArray[np.float32] = (1 / np.sqrt(counts)).astype(np.float32)
    return found


def touched(texts: csr_array) -> tuple[NDArray[np.int64], csr_array]:
    """The buckets (U,) that any of the texts falls into, ascending; and the texts over these alone, (N, U)."""
    buckets, inverse = np.unique(texts.indices, return_inverse=True)
    among = csr_array((texts.data, inverse, texts.indptr), shape=(texts.shape[0], len(buckets)))
    return buckets.astype(np.int64), among


def _characters(block: Block) -> Characters:
    return characters(block.texts)
