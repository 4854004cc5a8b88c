"""One feed's fast clock: due examples → one block → its pulse, recorded, learned, published (DESIGN §4).

Guards invariants 1 and 5 on this clock. `step` reads like this: take what is due → score it as it would have been
answered → learn → watch → record the pulse with what it learned, in one transaction → only then change the state →
publish. Killed anywhere, the next life makes the state again from the last one that was kept and what was recorded
since, and publishes what may be missing; the bytes are the same.

Ordering: pulses of a feed are numbered without holes. Errors: BufferFull and RegistryUnavailable leave everything as it
was, or as it was recorded; LeaseLost, BufferStoreError: another process keeps this clock by now, `open` again.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import structlog
from numpy.typing import NDArray

from driftline.artefact.manifest import Signer, Trust
from driftline.artefact.pulse import mark, seal_pulse
from driftline.buffer import FastClockBooks, KeptState, Lesson
from driftline.config import FastConfig
from driftline.errors import PulseGap, RegistryUnavailable
from driftline.experts import MIXER, Block, ExpertState, Mixture, Partial, Step, advance, scoring_of
from driftline.experts.packing import pack_changes
from driftline.records import Pulse
from driftline.registry import Lease, Registry
from learner.fast.heads import Heads
from learner.fast.publisher import Publisher
from learner.fast.state import FastState, pack_fast_state, unpack_fast_state
from learner.fast.watch import Outcome, WatchState, watch

__all__ = ["FastClock", "FastShop"]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class FastShop:
    """What a feed's fast clock works with. `names` gives the features (C, d) of the label names by a version's body,
    `fast_state` the packed fast state that a version carries; None where they cannot be had. `current_name`: what a
    label of before is called by now. `trust`: whose signatures replicas take pulses from."""

    books: FastClockBooks
    registry: Registry
    heads: Heads
    names: Callable[[int], NDArray[np.float32] | None]
    fast_state: Callable[[int], bytes | None]
    current_name: Callable[[str], str]
    mixture: Mixture
    signer: Signer
    trust: Trust
    lease: Lease
    feature_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learned:
    """What a block teaches: the next pulse, and what becomes of the state with it."""

    pulse: Pulse
    steps: dict[str, Step]
    watched: WatchState


class FastClock:
    """One thread. `open` first; then `follow` and `step` as often as there may be something due."""

    def __init__(self, feed: str, labels: Sequence[str], section: FastConfig, shop: FastShop) -> None:
        self.feed = feed
        self._labels = tuple(labels)
        self._section = section
        self._shop = shop
        self._state: FastState
        self._kept = 0
        self._published = (0, 0)
        self._publisher = Publisher(
            feed=feed,
            section=section,
            registry=shop.registry,
            signer=shop.signer,
            trust=shop.trust,
            lease=shop.lease,
        )

    @property
    def state(self) -> FastState:
        """As of the last recorded pulse."""
        return self._state

    def open(self) -> None:
        """Go on from what was kept and recorded, or begin. A new epoch begins where labels or experts are others by
        now, or Redis or the versions are not those that the books were kept with."""
        books = self._shop.books
        if (kept := books.kept(self.feed)) is None:
            self._begin(self._first())
            return
        state, self._kept, self._published = self._unpacked(kept.state), kept.number, (0, 0)
        self._publisher.start_over()
        fits = self._fits(state)
        self._state, sealed = state if fits else self._moved(state), kept.pulse
        for earlier in books.since_kept(self.feed):
            if lessons := earlier.lessons if fits else self._renamed(earlier.lessons):
                learned = self._learned(lessons)
                sealed = seal_pulse(learned.pulse, self._shop.signer)
                self._become(learned)
        ahead = self._publisher.newest() > self._state.number  # the buffer is a restored one
        if not fits or ahead or sealed != books.last_pulse(self.feed):
            self._begin(self._state)
        else:
            self.publish()

    def follow(self, version: int) -> None:
        """Another version is live by now. On the way back (rollback, or an older one by hand) the fast state becomes
        what it was when that version was made, where it is still kept; forward it goes on as it is."""
        if version < self._state.version:
            self._begin(replace(self._moved(self._state_of(version)), version=version))
        elif version > self._state.version:
            self._keep(replace(self._state, version=version), self._last_pulse())
            self._state.version = version

    def waiting(self) -> int:
        """How many examples are due."""
        return self._shop.books.due_count(self.feed)

    def step(self) -> int:
        """Learn what is due, one block at most; returns how many examples. The pulse may still be unpublished where
        Redis does not answer: it follows."""
        lessons = _of_one_version(self._shop.books.due(self.feed, self._section.block_examples))
        if not lessons:
            return 0
        learned = self._learned(lessons)
        while len(learned.pulse.change) > self._section.max_pulse_bytes and len(lessons) > 1:
            lessons = lessons[: len(lessons) // 2]
            learned = self._learned(lessons)
        sealed = seal_pulse(learned.pulse, self._shop.signer)
        self._shop.books.record(self.feed, learned.pulse, sealed, lessons)
        if learned.watched.fell_back != self._state.watch.fell_back:
            self._tell(learned.watched)
        self._become(learned)
        self.publish()
        if self._state.number - self._kept >= self._section.snapshot_pulses:
            self._keep(self._state, sealed)
            self.publish()
        return len(lessons)

    def publish(self) -> bool:
        """Bring the registry to the last recorded pulse; False where it does not answer now: ask again. Does nothing
        where it is there already."""
        if self._published == (self._state.number, self._kept):
            return True
        try:
            self._publish()
        except RegistryUnavailable as error:
            log.warning("pulse_not_published", feed=self.feed, pulse=self._state.number, error=str(error))
        return self._published == (self._state.number, self._kept)

    def _publish(self) -> None:
        try:
            self._publisher.publish(self._state, self._last_pulse(), self._kept)
            self._published = self._state.number, self._kept
        except PulseGap as gap:
            log.warning("epoch_begins", feed=self.feed, reason=str(gap))
            self._begin(self._state)  # and publishes

    # --- learning

    def _learned(self, lessons: Sequence[Lesson]) -> _Learned:
        """What these teach; changes nothing."""
        state, shop = self._state, self._shop
        block, targets = self._block(lessons), self._targets(lessons)
        mixed = shop.mixture.score(scoring_of(state.experts), block)
        steps = shop.mixture.learn(state.experts, block, targets)
        watched = watch(state.watch, self._outcomes(mixed.logits, block, targets), self._section.patience)
        pulse = Pulse(
            feed=self.feed,
            epoch=state.epoch,
            number=state.number + 1,
            before=state.mark,
            last_seq=max(state.last_seq, *(lesson.seq for lesson in lessons)),
            fell_back=watched.fell_back,
            change=pack_changes({name: step.scoring for name, step in steps.items()}),
        )
        return _Learned(pulse=pulse, steps=steps, watched=watched)

    def _become(self, learned: _Learned) -> None:
        state, pulse = self._state, learned.pulse
        advance(state.experts, learned.steps)
        state.number, state.mark, state.last_seq = pulse.number, mark(pulse), pulse.last_seq
        state.watch = learned.watched

    def _block(self, lessons: Sequence[Lesson]) -> Block:
        shop, version = self._shop, next((one.version for one in lessons if one.version is not None), None)
        features = Partial.of([_feature(lesson, shop.feature_size) for lesson in lessons], shop.feature_size)
        return Block(
            texts=tuple(lesson.text for lesson in lessons),
            features=features,
            head=shop.heads.scores(features, [lesson.version for lesson in lessons], self._state.labels),
            names=None if version is None else shop.names(version),
        )

    def _targets(self, lessons: Sequence[Lesson]) -> NDArray[np.int64]:
        index = {label: place for place, label in enumerate(self._state.labels)}
        return np.array([index[lesson.label] for lesson in lessons], np.int64)  # (N,)

    def _outcomes(self, logits: NDArray[np.float64], block: Block, targets: NDArray[np.int64]) -> list[Outcome]:
        """How mixture, head and majority would have answered, before any of these labels was learned."""
        ours, heads = logits.argmax(axis=1) == targets, block.head.values.argmax(axis=1) == targets  # (N,)
        majority = int(self._state.experts[MIXER].scoring["seen"].argmax())
        return [
            Outcome(bool(right), bool(head) if known else None, bool(target == majority))
            for right, head, known, target in zip(ours, heads, block.head.known, targets, strict=True)
        ]

    def _tell(self, watched: WatchState) -> None:
        if watched.fell_back:
            log.warning("fast_state_fell_back", feed=self.feed, answers="the version's own head alone")
        else:
            log.warning("fast_state_is_back", feed=self.feed)

    # --- epochs

    def _first(self) -> FastState:
        return FastState(
            epoch="",
            number=0,
            mark=b"",
            last_seq=0,
            version=0,
            labels=self._labels,
            watch=WatchState(),
            experts=self._shop.mixture.start(len(self._labels), self._shop.feature_size),
        )

    def _state_of(self, version: int) -> FastState:
        """The one that the version carries; where it carries none (any more) it starts anew."""
        packed = self._shop.fast_state(version) if version else None
        if packed is None and version:
            log.warning("fast_state_not_kept", feed=self.feed, version=version, remedy="it starts anew")
        return self._first() if packed is None else self._unpacked(packed)

    def _unpacked(self, packed: bytes) -> FastState:
        """With the experts that have no arrays, of which nothing is packed."""
        state, first = unpack_fast_state(packed), self._first().experts
        bare = {name: one for name, one in first.items() if not (one.scoring or one.learning)}
        return replace(state, experts=bare | state.experts)

    def _fits(self, state: FastState) -> bool:
        shapes, wanted = (
            {name: _shapes(one) for name, one in experts.items()} for experts in (state.experts, self._first().experts)
        )
        return state.labels == self._labels and shapes == wanted

    def _moved(self, state: FastState) -> FastState:
        """The state under the config's labels and experts: what both know stays learned. An expert that has another
        size by now (its budget, another base) starts anew."""
        fresh, known_as = self._first().experts, [self._shop.current_name(label) for label in state.labels]
        rows = [known_as.index(label) if label in known_as else None for label in self._labels]
        moved = {name: one for name, one in state.experts.items() if name in fresh}
        if rows != list(range(len(state.labels))):
            known = self._shop.mixture.start(len(state.labels), self._shop.feature_size) | moved
            moved = self._shop.mixture.relabel(known, rows)
        experts = {name: _fitted(moved.get(name), one) for name, one in fresh.items()}
        return replace(state, labels=self._labels, watch=WatchState(), experts=experts)

    def _renamed(self, lessons: Sequence[Lesson]) -> list[Lesson]:
        """Those that the config has a class for, under its present name."""
        named = [replace(lesson, label=self._shop.current_name(lesson.label)) for lesson in lessons]
        return [lesson for lesson in named if lesson.label in self._labels]

    def _begin(self, state: FastState) -> None:
        """A new epoch from this state. RegistryUnavailable: its number has to lie above all that was ever signed."""
        shop = self._shop
        number = 1 + max(shop.books.last_number(self.feed), self._publisher.newest())
        epoch = hashlib.sha256(f"{shop.signer.key_id}:{self.feed}:{number}:{self._labels}".encode()).hexdigest()[:16]
        pulse = Pulse(
            feed=self.feed,
            epoch=epoch,
            number=number,
            before=b"",
            last_seq=state.last_seq,
            fell_back=state.watch.fell_back,
            change=b"",
        )
        begun = replace(state, epoch=epoch, number=number, mark=mark(pulse))
        self._keep(begun, seal_pulse(pulse, shop.signer))
        self._state = begun
        self.publish()

    # --- keeping and publishing

    def _last_pulse(self) -> bytes:
        sealed = self._shop.books.last_pulse(self.feed)
        assert sealed is not None, "a clock that was opened has a pulse"
        return sealed

    def _keep(self, state: FastState, sealed: bytes) -> None:
        kept = KeptState(epoch=state.epoch, number=state.number, pulse=sealed, state=pack_fast_state(state))
        self._shop.books.keep(self.feed, kept)
        self._kept = state.number


def _fitted(found: ExpertState | None, fresh: ExpertState) -> ExpertState:
    """What was found, with the arrays that a fresh one has and no others (the mixer's, of experts that come and go);
    the fresh one where there is none, or of another size."""
    if found is None:
        return fresh
    whole = ExpertState(
        scoring={key: found.scoring.get(key, array) for key, array in fresh.scoring.items()},
        learning={key: found.learning.get(key, array) for key, array in fresh.learning.items()},
    )
    return whole if _shapes(whole) == _shapes(fresh) else fresh


def _shapes(state: ExpertState) -> list[dict[str, tuple[int, ...]]]:
    """Of the scoring arrays, and of the others."""
    return [{key: array.shape for key, array in bag.items()} for bag in (state.scoring, state.learning)]


def _feature(lesson: Lesson, size: int) -> NDArray[np.float32] | None:
    """The served feature; None if there is none, or one of another size (another base)."""
    if lesson.feature is None or len(lesson.feature) != 2 * size:
        return None
    found = np.frombuffer(lesson.feature, "<f2").astype(np.float32)  # (d,)
    return found if np.isfinite(found).all() else None


def _of_one_version(lessons: Sequence[Lesson]) -> list[Lesson]:
    """The first of them, up to where another version answered: a block's features and names are of one body."""
    block: list[Lesson] = []
    version = None
    for lesson in lessons:
        if lesson.version is not None:
            if version is not None and lesson.version != version:
                break
            version = lesson.version
        block.append(lesson)
    return block
