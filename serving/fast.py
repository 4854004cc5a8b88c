"""One feed's fast state as this replica answers with it: loaded from a snapshot, moved on pulse by pulse.

Guards that what is mixed is what the fast clock published, bit for bit: a pulse is taken over only if it follows the
one before by number and mark, and only whole; a snapshot only if its arrays are exactly those that this feed's config
asks for. Anything else is refused, and the last good state stays.

The arrays are there twice: a pulse is written into those that nobody answers with, then the two change places, which
takes microseconds however large the pulse is; the others get the same numbers before the next one.

Not covered: signatures (`driftline.artefact.pulse`), and threads: one follows; nobody mixes during `take` and
`start_at`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from driftline.artefact.pulse import mark
from driftline.errors import ArtefactError
from driftline.experts import MIXER, Arrays, Block, Mixed, Mixture, scoring_of
from driftline.experts.packing import unpack_changes, unpack_states
from driftline.experts.state import Cells, Change, check, write
from driftline.records import Pulse, Snapshot

__all__ = ["FastReplica", "Ready"]


class Ready(NamedTuple):
    """A pulse that was read and checked, with its mark."""

    pulse: Pulse
    mark: bytes
    changes: Mapping[str, Mapping[str, Change]]


class FastReplica:
    """`number` is the pulse that it stands at; 0: nothing was loaded yet."""

    def __init__(self, feed: str, labels: tuple[str, ...], mixture: Mixture, feature_size: int) -> None:
        self.feed = feed
        self.labels = labels
        self.number = 0
        self.fell_back = False
        self._epoch = ""
        self._mark = b""
        self._mixture = mixture
        self._feature_size = feature_size
        self._scoring = scoring_of(mixture.start(len(labels), feature_size))
        self._spare: dict[str, Arrays] | None = None  # None: to be copied from those that answer
        self._missing: Ready | None = None  # what the spare ones lack
        self._staged: Ready | None = None

    @property
    def has_learned(self) -> bool:
        """Whether any label has been learned."""
        return bool(self._scoring[MIXER]["seen"].any())

    def mix(self, block: Block) -> Mixed:
        """How these texts are answered at this pulse."""
        return self._mixture.score(self._scoring, block)

    def follows(self, pulse: Pulse) -> bool:
        """Whether the pulse is the next one; where it is not, a snapshot leads on."""
        return (pulse.epoch, pulse.number, pulse.before) == (self._epoch, self.number + 1, self._mark)

    def require_own(self, snapshot: Snapshot) -> None:
        """ArtefactError(wrong_task) if it is of another feed or of other labels, whatever its arrays are."""
        if (snapshot.feed, snapshot.labels) != (self.feed, self.labels):
            found = f"of feed {snapshot.feed!r} and labels {', '.join(snapshot.labels)}"
            raise ArtefactError("wrong_task", f"the fast state is {found}: adapt and serve need the same config")

    def read_snapshot(self, state: bytes) -> dict[str, Arrays]:
        """A snapshot's arrays, which fit; needs no pause. ArtefactError: unreadable, wrong_shape, not_finite."""
        return self._fitting(_read(state))

    def start_at(self, snapshot: Snapshot, state: dict[str, Arrays]) -> None:
        """Stand where the snapshot stands, with its arrays as `read_snapshot` gave them."""
        self._scoring, self._spare, self._staged = state, None, None
        self._epoch, self.number, self._mark = snapshot.epoch, snapshot.number, snapshot.mark
        self.fell_back = snapshot.fell_back

    def anew(self) -> "FastReplica":
        """One of the same feed that nothing was loaded into, to catch up aside."""
        return FastReplica(self.feed, self.labels, self._mixture, self._feature_size)

    def become(self, other: "FastReplica") -> None:
        """Stand where `other` stands, with its arrays; nobody uses it any more."""
        self._scoring, self._spare = other._scoring, other._spare
        self._missing, self._staged = other._missing, other._staged
        self._epoch, self.number, self._mark = other._epoch, other.number, other._mark
        self.fell_back = other.fell_back

    def read(self, pulse: Pulse) -> Ready:
        """The pulse's changes, which fit. ArtefactError: unreadable, wrong_shape, not_finite."""
        try:
            changes = unpack_changes(pulse.change)
        except ValueError as error:
            raise ArtefactError("unreadable", f"pulse {pulse.number}: {error}") from None
        for expert, own in changes.items():
            for name, change in own.items():
                self._check(pulse, expert, name, change)
        return Ready(pulse, mark(pulse), changes)

    def stage(self, ready: Ready) -> None:
        """Write a pulse that `follows`, as `read` gave it, where nobody answers with it yet."""
        if self._spare is None or self._staged is not None:  # one that was staged and never taken is not to stay
            self._spare, self._missing = _copied(self._scoring), None
        for one in (self._missing, ready):
            for expert, own in one.changes.items() if one is not None else ():
                write(self._spare[expert], own)
        self._missing, self._staged = None, ready

    def take(self) -> None:
        """Move on by the pulse that was staged."""
        assert self._staged is not None, "stage first"
        assert self._spare is not None
        self._scoring, self._spare = self._spare, self._scoring
        self._missing, self._staged = self._staged, None
        pulse, self._mark, _ = self._missing
        self.number, self.fell_back = pulse.number, pulse.fell_back

    def _check(self, pulse: Pulse, expert: str, name: str, change: Change) -> None:
        try:
            check(f"{expert}.{name}", self._scoring[expert][name], change)
        except (KeyError, ValueError) as error:
            raise ArtefactError("wrong_shape", f"pulse {pulse.number} does not fit: {error}") from None
        if not np.isfinite(change.values if isinstance(change, Cells) else change).all():
            raise ArtefactError("not_finite", f"pulse {pulse.number}: {expert}.{name} is NaN or infinite")

    def _fitting(self, found: Mapping[str, Arrays]) -> dict[str, Arrays]:
        fitting: dict[str, Arrays] = {}
        for name, own in self._scoring.items():
            wanted = {key: (array.shape, array.dtype) for key, array in own.items()}
            arrays = fitting[name] = found.get(name, {})  # head and names learn nothing, so nothing is sent of them
            given = {key: (array.shape, array.dtype) for key, array in arrays.items()}
            if wanted != given:
                raise ArtefactError(
                    "wrong_shape",
                    f"the fast state's {name} has {given or 'nothing'}, expected {wanted}: adapt and serve need the "
                    "same [feed.NAME.fast]",
                )
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise ArtefactError("not_finite", f"the fast state's {name} holds NaN or infinite numbers")
        return fitting


def _read(state: bytes) -> dict[str, Arrays]:
    try:
        return scoring_of(unpack_states(state))
    except ValueError as error:
        raise ArtefactError("unreadable", f"the snapshot: {error}") from None


def _copied(scoring: Mapping[str, Arrays]) -> dict[str, Arrays]:
    return {expert: {name: array.copy() for name, array in arrays.items()} for expert, arrays in scoring.items()}
