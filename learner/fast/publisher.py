"""Brings Redis to the last recorded pulse of a feed, and believes nothing that stands there but what is signed.

Guards that who can write to Redis stops neither learning nor answers: how far Redis is follows from signed bytes alone,
and what stands in a pulse's place unsigned is overwritten by a snapshot.

Idempotency: by number and bytes. Errors: RegistryUnavailable (call again), LeaseLost, and PulseGap where a later pulse
is there that a trusted key signed: the buffer is a restored one, and a new epoch has to begin above it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import structlog

from driftline.artefact.manifest import Signer, Trust
from driftline.artefact.pulse import open_pulse, open_snapshot, seal_snapshot
from driftline.config import FastConfig
from driftline.errors import ArtefactError, PulseGap
from driftline.records import Pulse, Snapshot
from driftline.registry import Lease, Registry
from learner.fast.state import FastState, pack_scoring

__all__ = ["Publisher"]

log = structlog.get_logger()

SNAPSHOTS = 2
"""So many of one life stay in Redis: the newest, and the one that replicas may still be reading."""
FRAME_BYTES = 4096
"""What a pulse takes beside its change, signature and all, at most."""


@dataclass(slots=True, kw_only=True)
class Publisher:
    """One feed's. `trust`: whose signatures replicas take pulses from."""

    feed: str
    section: FastConfig
    registry: Registry
    signer: Signer
    trust: Trust
    lease: Lease
    _snapshot: int = 0
    _blobs: list[str] = field(default_factory=list)

    def start_over(self) -> None:
        """Nothing is known of what was published: the next `publish` puts a snapshot."""
        self._snapshot = 0

    def newest(self) -> int:
        """The greatest number of a pulse or snapshot of this feed that is there and signed; 0 of none."""
        return max((one.number for one in self._signed()), default=0)

    def publish(self, state: FastState, sealed: bytes, kept: int) -> None:
        """The state's pulse, and the snapshot first where none is there since `kept`: an epoch's first pulse makes
        replicas look for it."""
        if self._snapshot < kept:
            self._put_snapshot(state)
        if len(sealed) > self.section.max_pulse_bytes + FRAME_BYTES:  # of one text
            self._go_in_place(state)
            return
        try:
            self.registry.pulses.publish(self.feed, state.number, sealed, lease=self.lease)
        except PulseGap as gap:  # Redis was away for several pulses, lost the last ones, or holds what is not ours
            log.warning("snapshot_in_place", feed=self.feed, pulse=state.number, reason=str(gap))
            self._go_in_place(state)

    def _go_in_place(self, state: FastState) -> None:
        if (newest := self.newest()) > state.number:
            raise PulseGap(
                f"feed {self.feed}: pulse {newest} is out, signed, and this buffer knows {state.number} only"
            )
        self._put_snapshot(state, in_place=True)

    def _put_snapshot(self, state: FastState, *, in_place: bool = False) -> None:
        blob = self.registry.put_blob(self.feed, pack_scoring(state))
        snapshot = Snapshot(
            feed=self.feed,
            epoch=state.epoch,
            number=state.number,
            mark=state.mark,
            last_seq=state.last_seq,
            fell_back=state.watch.fell_back,
            labels=state.labels,
            sha256=blob,
        )
        self.registry.pulses.put_snapshot(
            self.feed,
            state.number,
            seal_snapshot(snapshot, self.signer),
            blob,
            kept=2 * self.section.snapshot_pulses,
            lease=self.lease,
            in_place=in_place,
        )
        self._snapshot = state.number
        self._blobs = [one for one in self._blobs if one != blob] + [blob]
        while len(self._blobs) > SNAPSHOTS:
            self.registry.drop_blob(self.feed, self._blobs.pop(0))

    def _signed(self) -> Iterator[Pulse | Snapshot]:
        """The snapshot, and the newest pulse that is: of this feed, each of them."""
        pulses = self.registry.pulses
        if (sealed := pulses.snapshot(self.feed)) is not None:
            yield from self._ours(open_snapshot, sealed)
        signed = (pulse for one in pulses.newest_first(self.feed) for pulse in self._ours(open_pulse, one))
        yield from islice(signed, 1)

    def _ours(self, opened: Callable[[bytes, Trust], Pulse | Snapshot], sealed: bytes) -> list[Pulse | Snapshot]:
        """What these bytes are; nothing where no trusted key signed them, or for another feed."""
        try:
            found = opened(sealed, self.trust)
        except ArtefactError:
            return []
        return [found] if found.feed == self.feed else []
