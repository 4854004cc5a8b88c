"""Which past examples are kept for replay to draw from. One small file per reservoir.

Pure: randomness is an argument, and only `rng.integers(n)` is asked.
"""

from learner.reservoirs.class_balanced import ClassBalancedReservoir
from learner.reservoirs.reservoir import Reservoir, ReservoirState, Uniform, draw_without_repeats
from learner.reservoirs.uniform import UniformReservoir

__all__ = ["RESERVOIRS", "Reservoir", "ReservoirState", "Uniform", "draw_without_repeats"]

RESERVOIRS: dict[str, type[Reservoir]] = {"uniform": UniformReservoir, "class_balanced": ClassBalancedReservoir}
"""By the name that `learner.reservoir` gives it."""
