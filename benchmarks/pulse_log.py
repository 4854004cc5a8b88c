"""What a fast clock publishes, written down as it passes, since the stream is bounded; and its states made again.

Beside each pulse stands what it learned, as the buffer has it before the next snapshot drops it.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from driftline.artefact.manifest import Trust
from driftline.artefact.pulse import mark, open_pulse, open_snapshot
from driftline.assembly.wiring import build_registry, build_trust, open_buffer
from driftline.buffer import Buffer
from driftline.config import Config
from driftline.errors import ArtefactError, RegistryError
from driftline.experts import Arrays, scoring_of
from driftline.experts.packing import unpack_changes, unpack_states
from driftline.experts.state import apply
from driftline.records import Pulse, Snapshot
from driftline.registry import Registry

LOOK_S = 0.03
"""Between looks at the buffer: a snapshot drops what led to it, and takes a tenth of a second to be packed before."""


@dataclass(slots=True, kw_only=True)
class PulseLog:
    """By number: each pulse, when it was there (`time.monotonic()`), the numbers of the examples that it learned; and
    snapshots with their packed arrays. Signatures were checked."""

    pulses: dict[int, Pulse] = field(default_factory=dict)
    seen_at: dict[int, float] = field(default_factory=dict)
    lessons: dict[int, tuple[int, ...]] = field(default_factory=dict)
    snapshots: dict[int, tuple[Snapshot, bytes]] = field(default_factory=dict)

    def listen(self, feed: str, registry: Registry, trust: Trust) -> None:
        """Take down what stands in Redis now, and wait a moment for more."""
        last = max(self.pulses, default=0)
        stored = registry.pulses.stored(feed)
        if stored.snapshot is not None:
            snapshot = open_snapshot(stored.snapshot, trust)
            if snapshot.number not in self.snapshots:
                self.snapshots[snapshot.number] = snapshot, registry.get_blob(feed, snapshot.sha256)
        while found := registry.pulses.after(feed, last):
            for last, sealed in found:
                self.pulses[last] = open_pulse(sealed, trust)
                self.seen_at[last] = time.monotonic()
        registry.pulses.wait({feed: last}, 0.5)

    def look(self, feed: str, buffer: Buffer, last: int) -> int:
        """Take down what the buffer says was learned, if it is ahead of pulse `last`; returns where it stands."""
        if (number := buffer.fast.last_number(feed)) != last:
            for learned in buffer.fast.since_kept(feed):
                self.lessons[learned.number] = tuple(lesson.seq for lesson in learned.lessons)
        return number

    def pulse_of(self) -> dict[int, int]:
        """The first pulse that learned each example."""
        return {seq: number for number in sorted(self.lessons, reverse=True) for seq in self.lessons[number]}

    def states(self, experts: tuple[str, ...]) -> Iterator[tuple[Pulse | Snapshot, dict[str, Arrays]]]:
        """The scoring arrays after each pulse, rising, from the first snapshot on; they are changed in place. A pulse
        that does not follow the one before needs a snapshot of its number, or is left out.

        RuntimeError where a snapshot is not what the pulses before it lead to.
        """
        at: tuple[str, int, bytes] | None = None
        arrays: dict[str, Arrays] = {}
        for number in sorted({*self.pulses, *self.snapshots}):
            pulse, (snapshot, packed) = self.pulses.get(number), self.snapshots.get(number, (None, b""))
            whole = {name: {} for name in experts} | scoring_of(unpack_states(packed)) if snapshot else {}
            if pulse is not None and at == (pulse.epoch, number - 1, pulse.before):
                for name, changes in unpack_changes(pulse.change).items():
                    apply(arrays[name], changes)
                if whole and not _equal(arrays, whole):
                    raise RuntimeError(f"the snapshot of pulse {number} is not what the pulses lead to")
                at = pulse.epoch, number, mark(pulse)
                yield pulse, arrays
            elif snapshot is not None:
                arrays, at = whole, (snapshot.epoch, number, snapshot.mark)
                yield snapshot, arrays


def _equal(ours: dict[str, Arrays], theirs: dict[str, Arrays]) -> bool:
    if {name: set(own) for name, own in ours.items()} != {name: set(own) for name, own in theirs.items()}:
        return False
    return all(
        array.tobytes() == theirs[name][key].tobytes() for name, own in ours.items() for key, array in own.items()
    )


@contextmanager
def recording(config: Config, feed: str) -> Iterator[PulseLog]:
    """A log that is written until the block is left."""
    log, stop = PulseLog(), threading.Event()
    threads = [threading.Thread(target=run, args=(log, config, feed, stop)) for run in (_listen, _look)]
    for thread in threads:
        thread.start()
    try:
        yield log
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _listen(log: PulseLog, config: Config, feed: str, stop: threading.Event) -> None:
    with closing(build_registry(config)) as registry:
        trust = build_trust(config)
        while not stop.is_set():
            try:
                log.listen(feed, registry, trust)
            except (RegistryError, ArtefactError):  # Redis is away, or a newer snapshot has just taken the place of one
                stop.wait(LOOK_S)


def _look(log: PulseLog, config: Config, feed: str, stop: threading.Event) -> None:
    last = 0
    with closing(open_buffer(config, read_only=True)) as buffer:
        while not stop.wait(LOOK_S):
            last = log.look(feed, buffer, last)
