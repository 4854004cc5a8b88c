"""What every expert, the mixer and the mixture must keep: purity, the same bytes in any batch, bounded state, exact
changes, and a state that can be saved, loaded, renamed and grown."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from driftline.experts import (
    EXPERTS,
    MIXER,
    Arrays,
    Block,
    ExpertState,
    Mixture,
    Partial,
    Targets,
    advance,
    apply,
    probabilities,
)
from driftline.experts.hashing import characters, word_grams
from driftline.experts.linear import Linear, bucket_count

DIM = 32
TEXTS = (
    "",
    "the flight was late again and nobody cared",
    "loved it 😀😀 thank you!!",
    "我喜欢这个游戏。真好",
    "สนุกมาก",
    "\ud800 half a pair",
    "x" * 10_000,
    "never buy this, never",
)
SMALL = {name: replace(one, budget_bytes=1 << 20) if isinstance(one, Linear) else one for name, one in EXPERTS.items()}
MIXTURE = Mixture(experts=SMALL)


def blocks(classes: int, count: int = 3, *, seed: int = 5) -> list[tuple[Block, Targets]]:
    """Some rows lack a feature, some a head."""
    rng = np.random.default_rng(seed)
    return [(block(classes, rng), rng.integers(0, classes, len(TEXTS))) for _ in range(count)]


def block(classes: int, rng: np.random.Generator) -> Block:
    features = normed(rng.standard_normal((len(TEXTS), DIM)).astype(np.float32))
    head = np.log(probabilities(rng.standard_normal((len(TEXTS), classes))))
    names = normed(rng.standard_normal((classes, DIM)).astype(np.float32))
    return Block(
        texts=tuple(rng.permutation(TEXTS).tolist()),
        features=Partial.of([row if place % 3 else None for place, row in enumerate(features)], DIM),
        head=Partial.of([row if place % 4 else None for place, row in enumerate(head)], classes),
        names=names,
    )


def normed(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = rows * (np.sqrt(DIM) / np.linalg.norm(rows, axis=1, keepdims=True))
    return scaled.astype(np.float32)


def one_row(whole: Block, row: int) -> Block:
    def cut(partial: Partial) -> Partial:
        return Partial(values=partial.values[row : row + 1], known=partial.known[row : row + 1])

    return Block(
        texts=whole.texts[row : row + 1], features=cut(whole.features), head=cut(whole.head), names=whole.names
    )


def learn(states: dict[str, ExpertState], lessons: Sequence[tuple[Block, Targets]]) -> list[dict[str, Arrays]]:
    """Learn in place; what each block changed of the scoring arrays."""
    sent = []
    for given, targets in lessons:
        steps = MIXTURE.learn(states, given, targets)
        advance(states, steps)
        sent.append({name: step.scoring for name, step in steps.items()})
    return sent


def flat(states: dict[str, ExpertState]) -> Arrays:
    halves = {(name, half): getattr(state, half) for name, state in states.items() for half in ("scoring", "learning")}
    return {f"{name}.{half}.{key}": array for (name, half), arrays in halves.items() for key, array in arrays.items()}


def unflat(arrays: Arrays) -> dict[str, ExpertState]:
    states = {name: ExpertState() for name in (*EXPERTS, MIXER)}
    for path, array in arrays.items():
        name, half, key = path.split(".")
        getattr(states[name], half)[key] = array
    return states


def the_bytes(states: dict[str, ExpertState]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in flat(states).items()}


@pytest.mark.parametrize("classes", [1, 2, 150])
def test_learning_changes_nothing_by_itself(classes: int) -> None:
    states = MIXTURE.start(classes, DIM)
    before = the_bytes(states)
    MIXTURE.learn(states, *blocks(classes, 1)[0])
    assert the_bytes(states) == before


@pytest.mark.parametrize("classes", [1, 2, 150])
def test_saved_loaded_and_gone_on_is_never_stopped(classes: int) -> None:
    lessons = blocks(classes, 6)
    unbroken, stopped = MIXTURE.start(classes, DIM), MIXTURE.start(classes, DIM)
    learn(unbroken, lessons)
    learn(stopped, lessons[:3])
    loaded = unflat(safetensors.numpy.load(safetensors.numpy.save(flat(stopped))))
    learn(loaded, lessons[3:])
    assert the_bytes(loaded) == the_bytes(unbroken)


@pytest.mark.parametrize("classes", [1, 3, 150])
def test_a_replica_that_applies_the_changes_holds_the_same_bytes(classes: int) -> None:
    states = MIXTURE.start(classes, DIM)
    replica = {name: state.scoring for name, state in MIXTURE.start(classes, DIM).items()}
    for sent in learn(states, blocks(classes, 5)):
        for name, changes in sent.items():
            apply(replica[name], changes)
    for name, state in states.items():
        assert {key: array.tobytes() for key, array in replica[name].items()} == {
            key: array.tobytes() for key, array in state.scoring.items()
        }


@pytest.mark.parametrize("classes", [1, 2, 150])
def test_a_text_scores_the_same_bytes_alone_and_in_a_batch(classes: int) -> None:
    states = MIXTURE.start(classes, DIM)
    *lessons, (whole, _) = blocks(classes, 4)
    learn(states, lessons)
    scoring = {name: state.scoring for name, state in states.items()}
    together = MIXTURE.score(scoring, whole)
    for row in range(len(whole)):
        alone = MIXTURE.score(scoring, one_row(whole, row))
        assert alone.logits[0].tobytes() == together.logits[row].tobytes()
        for name, partial in together.scores.items():
            assert alone.scores[name].values[0].tobytes() == partial.values[row].tobytes(), name
            assert alone.scores[name].known[0] == partial.known[row], name


def test_the_number_of_threads_changes_no_byte() -> None:
    """BLAS picks the order of its additions by it."""
    code = (
        "import hashlib, numpy as np, tests.unit.test_experts as t\n"
        "t.DIM = 384\n"
        "states = t.MIXTURE.start(150, 384)\n"
        "t.learn(states, t.blocks(150, 3))\n"
        "print(hashlib.sha256(b''.join(t.the_bytes(states).values())).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"OPENBLAS_NUM_THREADS": threads, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "8")
    }
    assert len(found) == 1


@pytest.mark.parametrize("classes", [2, 150, 2000, 40_000_000])
def test_weights_stay_within_their_budget(classes: int) -> None:
    buckets = bucket_count(classes, 32 << 20)
    assert buckets == 1 or buckets * classes * 4 <= 32 << 20
    assert buckets == 1 << 18 or buckets * classes * 8 > 32 << 20


def test_two_thousand_classes_in_bounded_bytes() -> None:
    states = MIXTURE.start(2000, DIM)
    learn(states, blocks(2000, 2))
    for name in ("words", "chars"):
        assert states[name].scoring["weight"].nbytes <= 1 << 20


@pytest.mark.parametrize("name", [name for name in EXPERTS if name not in ("head", "names")])
def test_it_learns_what_it_was_taught(name: str) -> None:
    expert, (given, _) = EXPERTS[name], blocks(2, 1)[0]
    targets = np.arange(len(TEXTS)) % 2
    state = expert.start(2, DIM)
    for _ in range(20):
        step = expert.learn(state, given, targets)
        apply(state.scoring, step.scoring)
        apply(state.learning, step.learning)
    scores = expert.score(state.scoring, given)
    told = scores.known & np.array([bool(text) for text in given.texts])
    assert told.sum() >= 4
    assert (scores.values.argmax(axis=1) == targets)[told].all()


@pytest.mark.parametrize("name", list(EXPERTS))
def test_classes_move_with_what_was_learned(name: str) -> None:
    lessons = blocks(3, 4)
    states = MIXTURE.start(3, DIM)
    learn(states, lessons)
    given = lessons[0][0]
    before = EXPERTS[name].score(states[name].scoring, given).values
    moved = EXPERTS[name].relabel(states[name], [2, None, 0])
    after = EXPERTS[name].score(moved.scoring, relabelled(given, [2, None, 0])).values
    np.testing.assert_allclose(after[:, [0, 2]], before[:, [2, 0]], atol=1e-5)


def relabelled(given: Block, rows: Sequence[int | None]) -> Block:
    order = [row or 0 for row in rows]
    head = replace(given.head, values=given.head.values[:, order])
    return replace(given, head=head, names=None if given.names is None else given.names[order])


def test_the_mixture_goes_on_under_other_labels() -> None:
    states = MIXTURE.start(2, DIM)
    learn(states, blocks(2, 2))
    grown = MIXTURE.relabel(states, [1, None, 0])
    learn(grown, blocks(3, 2))
    assert grown[MIXER].scoring["seen"].sum() == 4 * len(TEXTS)


def test_buckets_are_folded_where_classes_are_added() -> None:
    expert = EXPERTS["words"]
    assert isinstance(expert, Linear)
    tight = replace(expert, budget_bytes=2 * 4 * 64)
    state, (given, _) = tight.start(2, DIM), blocks(2, 1)[0]
    step = tight.learn(state, given, np.arange(len(TEXTS)) % 2)
    apply(state.scoring, step.scoring)
    folded = tight.relabel(state, [0, 1, None])
    assert [len(one.scoring["weight"]) for one in (state, folded)] == [64, 32]
    np.testing.assert_allclose(
        folded.scoring["weight"][:, :2], state.scoring["weight"].reshape(2, 32, 2).sum(axis=0), atol=1e-6
    )


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(wrong: float) -> None:
    row = np.full(DIM, wrong, np.float16)
    with pytest.raises(ValueError, match="row 1 holds NaN or infinite"):
        Partial.of([np.zeros(DIM), row], DIM)
    with pytest.raises(ValueError, match="NaN or infinite"):
        Partial.full(np.full((2, 3), wrong))


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"row 0 is \(3,\), expected \(4,\)"):
        Partial.of([np.zeros(3)], 4)


def test_no_text_at_all() -> None:
    empty = Block(texts=(), features=Partial.none(0, DIM), head=Partial.none(0, 3))
    states = MIXTURE.start(3, DIM)
    assert MIXTURE.score({name: state.scoring for name, state in states.items()}, empty).logits.shape == (0, 3)


def test_what_was_prepared_scores_the_same() -> None:
    (lesson, targets), (given, _) = blocks(3, 2)
    states = MIXTURE.start(3, DIM)
    learn(states, [(lesson, targets)])
    scoring = {name: state.scoring for name, state in states.items()}
    prepared = replace(given)
    MIXTURE.prepare(prepared)
    assert MIXTURE.score(scoring, prepared).logits.tobytes() == MIXTURE.score(scoring, given).logits.tobytes()


def test_a_new_class_is_weighed_as_new_and_a_ripe_one_as_ripe() -> None:
    mixer = MIXTURE.mixer
    state = mixer.start(3, ["old", "new"])
    state.scoring["seen"][:] = [500, 500, 0]
    state.scoring["old"][0], state.scoring["new"][-1] = 0, 0
    scores = {"old": Partial.full(np.array([[1.0, 2, 4]])), "new": Partial.full(np.array([[8.0, 16, 32]]))}
    assert mixer.mix(state.scoring, scores).tolist() == [[1, 2, 32]]


def test_the_mixer_steps_against_the_gradient_of_the_log_loss() -> None:
    """The gradient by finite differences; AdaGrad's first step is its sign times the rate."""
    mixer, rng = MIXTURE.mixer, np.random.default_rng(1)
    state, targets = mixer.start(3, ["a", "b"]), np.array([0, 2, 1, 1])
    state.scoring["seen"][:] = [0, 5, 500]
    scores = {name: Partial.full(rng.standard_normal((4, 3))) for name in ("a", "b")}

    def loss() -> float:
        return -float(np.log(probabilities(mixer.mix(state.scoring, scores)))[np.arange(4), targets].mean())

    step, before = mixer.learn(state, scores, targets), loss()
    for name in ("a", "b", "bias"):
        for place in range(len(state.scoring[name])):
            state.scoring[name][place] += 1e-6
            slope = (loss() - before) / 1e-6
            state.scoring[name][place] -= 1e-6
            moved = step.scoring[name][place] - state.scoring[name][place]
            assert moved == pytest.approx(-mixer.rate * np.sign(slope) if abs(slope) > 1e-5 else 0, abs=1e-3)


def test_the_first_step_of_a_linear_expert_equals_a_plain_loop() -> None:
    """All classes are equally likely then, and a bucket's row moves by the rate along its normed gradient."""
    expert, (given, targets) = SMALL["words"], blocks(3, 1)[0]
    assert isinstance(expert, Linear)
    state = expert.start(3, DIM)
    gradient: dict[int, NDArray[np.float64]] = {}
    for text, target in zip(given.texts, targets, strict=True):
        buckets = {int(one) % len(state.learning["squares"]) for one in word_grams(characters([text])).hashes}
        for bucket in buckets:
            gradient.setdefault(bucket, np.zeros(3))
            gradient[bucket] += (1 / 3 - (np.arange(3) == target)) / np.sqrt(len(buckets))
    wanted = np.zeros_like(state.scoring["weight"])
    for bucket, row in gradient.items():
        wanted[bucket] = -expert.rate * np.log2(3) * row / np.linalg.norm(row)
    apply(state.scoring, expert.learn(state, given, targets).scoring)
    np.testing.assert_allclose(state.scoring["weight"], wanted, atol=1e-5)
