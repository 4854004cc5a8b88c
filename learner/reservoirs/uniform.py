"""Uniform reservoir sampling: every example of the stream is kept with the same probability, whatever its class.

Vitter, "Random Sampling with a Reservoir" (1985), algorithm R: the n-th example is kept with probability capacity/n, in
the place of a random entry.
"""

from learner.reservoirs.reservoir import Reservoir, Uniform


class UniformReservoir(Reservoir):
    """`Reservoir` "uniform"."""

    def _slot_for(self, label: str, rng: Uniform) -> int | None:  # noqa: ARG002
        slot = int(rng.integers(sum(self._seen.values())))
        return slot if slot < len(self._entries) else None

    def _drop_one(self, rng: Uniform) -> None:
        del self._entries[int(rng.integers(len(self._entries)))]
