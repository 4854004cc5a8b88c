"""One update: repeatable to the byte, the same as a plain loop, and it learns."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from driftline.artefact.weights import Weights, pack_body, pack_head, unpack
from driftline.base import Base, load_base
from driftline.config import BaseModelConfig, LearnerConfig
from driftline.tasks import task_named
from learner.model import LoraModel
from learner.moments import Moments
from learner.recent import RecentWindow
from learner.reservoir import ReservoirState
from learner.trainer_state import TrainerState, pack_state, unpack_state
from learner.update import Lesson, UpdateResult, batch_lessons, length_parts, run_update

GOOD = ["good great film", "love this phone", "perfect service , very nice staff", "best book", "happy with the food"]
BAD = [
    "bad poor film",
    "hate this phone",
    "awful service , very slow staff",
    "worst book",
    "broken and late , never again",
]
SECTION = LearnerConfig(learning_rate=1e-2, batch_examples=8, warmup_steps=3, threads=1, trained_share=0.5)


@pytest.fixture(scope="module")
def base(tiny_base_dir: Path) -> Base:
    return load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu"))


def lessons(base: Base, n: int, offset: int = 0) -> list[Lesson]:
    pairs = list(itertools.islice(itertools.cycle(itertools.chain(*zip(GOOD, BAD, strict=True))), offset, offset + n))
    return [Lesson(tokens=t, target=int(text in BAD)) for t, text in zip(base.tokenize(pairs), pairs, strict=True)]


@pytest.fixture(params=["float32", "bfloat16"])
def section(request: pytest.FixtureRequest) -> LearnerConfig:
    """Both dtypes on every machine: torch's CPU autocast needs no flag, it is only slower without."""
    return in_dtype(request.param)


def in_dtype(name: str) -> LearnerConfig:
    return SECTION.model_copy(update={"dtype": name})


def fresh_model(base: Base) -> LoraModel:
    return LoraModel(base, task_named("classification"), ("good", "bad"), SECTION)


def as_bytes(result: UpdateResult) -> tuple[bytes, bytes, bytes]:
    return pack_body(result.weights), pack_head(result.weights), pack_state(result.state)


def lesson(length: int, number: int = 0) -> Lesson:
    return Lesson(tokens=[number + 1] * length, target=0)


def test_the_same_update_gives_the_same_bytes(base: Base, section: LearnerConfig) -> None:
    first = run_update(fresh_model(base), None, lessons(base, 20), lessons(base, 12, 3), section, 5)
    torch.manual_seed(1234)
    again = run_update(fresh_model(base), None, lessons(base, 20), lessons(base, 12, 3), section, 5)
    assert as_bytes(first) == as_bytes(again)
    assert (first.steps, first.examples, first.state.optimizer.step) == (4, 32, 4)
    assert first.finite


def test_save_load_and_go_on_equals_never_having_stopped(base: Base, section: LearnerConfig) -> None:
    never = fresh_model(base)
    first = run_update(never, None, lessons(base, 20), lessons(base, 20, 1), section, 0)
    body, head, state = as_bytes(first)
    expected = run_update(never, first.state, lessons(base, 14, 2), lessons(base, 9), section, 1)

    stopped = fresh_model(base)
    stopped.load(unpack(body, head))
    found = run_update(stopped, unpack_state(state), lessons(base, 14, 2), lessons(base, 9), section, 1)
    assert as_bytes(found) == as_bytes(expected)


def test_a_parent_is_left_as_it_was(base: Base, section: LearnerConfig) -> None:
    parent = run_update(fresh_model(base), None, lessons(base, 16), [], section, 0)
    before = as_bytes(parent)
    model = fresh_model(base)
    model.load(parent.weights)
    run_update(model, parent.state, lessons(base, 16), [], section, 1)
    assert as_bytes(parent) == before


def plain_loop(base: Base, dtype: torch.dtype) -> Weights:
    """Whole batches, one backward each, torch's plain AdamW: what an update of two dozen lessons has to come to."""
    fresh, replayed = lessons(base, 12), lessons(base, 12, 5)
    model = fresh_model(base)
    parameters = list(model.parameters.values())
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0, foreach=False, fused=False)
    for step in range(3):
        batch = fresh[4 * step : 4 * step + 4] + replayed[4 * step : 4 * step + 4]
        optimizer.param_groups[0]["lr"] = 1e-2 * [1 / 3, 2 / 3, 1][step]
        optimizer.zero_grad()
        logits = model.logits(*base.collate([one.tokens for one in batch]), dtype)
        F.cross_entropy(logits, torch.tensor([one.target for one in batch])).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    return model.weights()


def updated(base: Base, dtype: str) -> Weights:
    """The same lessons by `run_update`, in parts."""
    return run_update(fresh_model(base), None, lessons(base, 12), lessons(base, 12, 5), in_dtype(dtype), 0).weights


def moving(base: Base) -> list[str]:
    """Names of the tensors that an update trains, the head's bias aside."""
    return [name for name in fresh_model(base).trained if name != "head.bias"]


def tensors(weights: Weights) -> dict[str, torch.Tensor]:
    return {**weights.body, "head.weight": weights.head_weight}


def test_in_fp32_it_equals_a_plain_loop(base: Base) -> None:
    """Only the order of additions may differ, which Adam passes on to elements with hardly any gradient."""
    result, expected = updated(base, "float32"), plain_loop(base, torch.float32)
    torch.testing.assert_close(result.head_weight, expected.head_weight, rtol=1e-3, atol=1e-5)
    for name, one in expected.body.items():
        torch.testing.assert_close(result.body[name], one, rtol=1e-3, atol=1e-4)


def test_in_bf16_it_equals_a_plain_loop_as_far_as_bf16_can_tell(base: Base) -> None:
    """Of what a tensor moved, as a share of its norm. A dozen bf16 products in a row, each rounded by 2⁻⁹, leave about
    1 % of noise in a gradient. Where Adam divides a gradient by itself (A's first), an element moves by its sign alone,
    and those few turn round whose gradient is less than the noise: about two of A's 256 (P(|g| < 0.01 σ) = 0.8 %),
    four at most, and four turned of 256 make 2·√4/√256 = 0.25. Other lessons make another update: twice that and more.
    """
    start = tensors(fresh_model(base).weights())
    loop, found = tensors(plain_loop(base, torch.bfloat16)), tensors(updated(base, "bfloat16"))
    other = tensors(run_update(fresh_model(base), None, lessons(base, 24)[1::2], [], in_dtype("bfloat16"), 0).weights)
    for name in moving(base):
        one = loop[name]
        moved = float((one - start[name]).norm())
        assert float((found[name] - one).norm()) <= 0.25 * moved, name
        assert float((other[name] - one).norm()) > 0.5 * moved, name
    assert not all(torch.equal(one, loop[name]) for name, one in tensors(plain_loop(base, torch.float32)).items())


def test_weights_of_a_bf16_update_are_fp32_and_answer_in_fp32(base: Base) -> None:
    """So the probe of its manifest is what serving computes, which knows fp32 only."""
    model = fresh_model(base)
    result = run_update(model, None, lessons(base, 24), [], in_dtype("bfloat16"), 0)
    assert {one.dtype for one in tensors(result.weights).values()} == {torch.float32}
    loaded = fresh_model(base)
    loaded.load(unpack(pack_body(result.weights), pack_head(result.weights)))
    assert torch.equal(model.predict(GOOD + BAD), loaded.predict(GOOD + BAD))
    with torch.inference_mode():
        rounded = loaded.logits(*base.collate(base.tokenize(GOOD + BAD)), torch.bfloat16)
    assert not torch.equal(rounded, loaded.predict(GOOD + BAD)), "else this test would see nothing"


def test_the_warm_up_happens_once_in_a_feeds_life(base: Base, section: LearnerConfig) -> None:
    """Adam's first step moves every head bias by the rate: lr/3 while warming up; at a later start the full rate."""
    batch = lessons(base, 8)[:7]  # uneven, so that the bias has a gradient
    first = run_update(fresh_model(base), None, batch, [], section, 0)
    assert first.weights.head_bias.abs() == pytest.approx(torch.full((2,), 1e-2 / 3), rel=1e-3)
    later = run_update(fresh_model(base), TrainerState(optimizer=Moments(step=100)), batch, [], section, 0)
    assert later.weights.head_bias.abs().tolist() == pytest.approx([1e-2] * 2, rel=1e-3)
    none = section.model_copy(update={"warmup_steps": 0})
    assert run_update(fresh_model(base), None, batch, [], none, 0).weights.head_bias.abs().tolist() == pytest.approx(
        [1e-2] * 2, rel=1e-3
    )


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_it_learns_and_moves_what_is_trained_and_nothing_else(base: Base, section: LearnerConfig, share: float) -> None:
    section = section.model_copy(update={"trained_share": share})
    model = LoraModel(base, task_named("classification"), ("good", "bad"), section)
    start = tensors(model.weights())
    result = run_update(model, None, lessons(base, 400), [], section, 0)
    assert result.mean_loss < 0.6  # ln 2 = 0.69 is what knowing nothing costs
    answers = model.predict(GOOD + BAD).argmax(dim=1).tolist()
    assert answers == [0] * 5 + [1] * 5
    moved = {name for name, one in tensors(result.weights).items() if not torch.equal(one, start[name])}
    upper = {name for name in start if name.startswith(("encoder.layer.1.", "head."))}
    assert moved == (upper if share == 0.5 else set(start))
    assert {name.rpartition(".")[0] for name in result.state.optimizer.means} == moved | {"head.bias"}


def test_no_graph_is_kept_below_the_layers_that_are_trained(base: Base) -> None:
    model = fresh_model(base)
    layers = model.target_paths[0].partition(".0.")[0]
    seen: dict[int, bool] = {}
    for number, layer in enumerate(model._body.get_submodule(layers).children()):
        layer.register_forward_hook(lambda _, __, out, number=number: seen.update({number: out.requires_grad}))
    run_update(model, None, lessons(base, 8), [], SECTION, 0)
    assert seen == {0: False, 1: True}


def test_a_parent_that_trained_all_layers_is_learned_on_from(base: Base, section: LearnerConfig) -> None:
    """What it learned in the lower layers goes on to answer; only the means that nobody moves any more are let go."""
    whole = section.model_copy(update={"trained_share": 1.0})
    parent = run_update(
        LoraModel(base, task_named("classification"), ("good", "bad"), whole), None, lessons(base, 64), [], whole, 0
    )
    model = fresh_model(base)
    model.load(unpack(pack_body(parent.weights), pack_head(parent.weights)))
    assert torch.equal(model.predict(GOOD), scores_of(base, parent.weights, GOOD))
    child = run_update(model, unpack_state(pack_state(parent.state)), lessons(base, 16), [], section, 1)
    lower = [name for name in parent.weights.body if name.startswith("encoder.layer.0.")]
    assert all(torch.equal(child.weights.body[name], parent.weights.body[name]) for name in lower)
    assert all(parent.weights.body[name].any() for name in lower)
    assert child.state.optimizer.step == parent.state.optimizer.step + 2

    whole_again = LoraModel(base, task_named("classification"), ("good", "bad"), whole)
    whole_again.load(child.weights)
    later = run_update(whole_again, child.state, lessons(base, 16), [], whole, 2)
    assert not any(torch.equal(later.weights.body[name], child.weights.body[name]) for name in lower)
    assert later.finite


def scores_of(base: Base, weights: Weights, texts: list[str]) -> torch.Tensor:
    """Logits (N, 2) by a model that trains all layers."""
    whole = SECTION.model_copy(update={"trained_share": 1.0})
    model = LoraModel(base, task_named("classification"), ("good", "bad"), whole)
    model.load(weights)
    return model.predict(texts)


def test_replay_state_travels_unchanged(base: Base) -> None:
    kept = ReservoirState(entries=((1, "a"),), seen={"a": 4}, full=frozenset())
    parent = TrainerState(reservoir=kept, recent=RecentWindow((1, 2)))
    after = run_update(fresh_model(base), parent, lessons(base, 4), [], SECTION, 0).state
    assert (after.reservoir, after.recent.seqs, after.optimizer.step) == (kept, (1, 2), 1)


def test_an_exploding_update_is_reported_not_hidden(base: Base, section: LearnerConfig) -> None:
    model = fresh_model(base)
    start = model.weights()
    start.head_weight.fill_(float("nan"))
    model.load(start)
    assert not run_update(model, None, lessons(base, 8), [], section, 0).finite


def test_nothing_to_learn_changes_nothing(base: Base, section: LearnerConfig) -> None:
    model = fresh_model(base)
    before = pack_body(model.weights())
    result = run_update(model, None, [], [], section, 0)
    assert (result.steps, result.examples, result.mean_loss, result.finite) == (0, 0, 0.0, True)
    assert pack_body(result.weights) == before


def test_threads_are_set_for_the_update_only(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    model = fresh_model(base)
    logits = model.logits
    monkeypatch.setattr(model, "logits", lambda *batch: seen.append(torch.get_num_threads()) or logits(*batch))
    before = torch.get_num_threads()
    run_update(model, None, lessons(base, 8), [], SECTION.model_copy(update={"threads": 2}), 0)
    assert set(seen) == {2}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("fresh", "replayed", "size", "shares"),
    [
        (32, 32, 32, [(16, 16), (16, 16)]),
        (10, 0, 4, [(3, 0), (3, 0), (4, 0)]),
        (20, 10, 10, [(6, 4), (7, 3), (7, 3)]),
        (3, 30, 11, [(1, 10), (1, 10), (1, 10)]),
        (0, 0, 32, []),
        (1, 0, 32, [(1, 0)]),
    ],
)
def test_batches_share_fresh_and_replayed(fresh: int, replayed: int, size: int, shares: list[tuple[int, int]]) -> None:
    ours = [lesson(1, number) for number in range(fresh)]
    theirs = [lesson(1, 1000 + number) for number in range(replayed)]
    batches = batch_lessons(ours, theirs, size)
    assert [
        (sum(b.tokens[0] <= 1000 for b in batch), sum(b.tokens[0] > 1000 for b in batch)) for batch in batches
    ] == shares
    order = [one for batch in batches for one in batch]
    assert [one for one in order if one.tokens[0] <= 1000] == ours
    assert [one for one in order if one.tokens[0] > 1000] == theirs


@pytest.mark.parametrize("fresh", [1, 7, 250, 999])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 2.5])
def test_no_batch_is_too_big_and_none_is_lost(fresh: int, ratio: float) -> None:
    replayed = round(fresh * ratio)
    batches = batch_lessons([lesson(1)] * fresh, [lesson(2)] * replayed, 32)
    assert len(batches) == -(-(fresh + replayed) // 32)
    assert max(len(batch) for batch in batches) <= 32
    for batch in batches:
        assert abs(sum(len(one.tokens) == 1 for one in batch) - len(batch) * fresh / (fresh + replayed)) < 1.5


def cost(parts: Sequence[Sequence[int]]) -> int:
    return sum(len(part) * max(part) + 64 for part in parts)


def test_parts_are_the_cheapest_cut() -> None:
    lengths = [3, 64, 5, 60, 9, 9, 30, 4]
    parts = length_parts([lesson(length) for length in lengths], 64)
    found = [[len(one.tokens) for one in part] for part in parts]
    assert [n for part in found for n in part] == sorted(lengths)
    ordered = sorted(lengths)
    every = [
        [ordered[a:b] for a, b in itertools.pairwise([0, *places, len(ordered)])]
        for count in range(len(ordered))
        for places in itertools.combinations(range(1, len(ordered)), count)
    ]
    assert cost(found) == min(cost(cut) for cut in every)
    assert length_parts([], 64) == []
    assert len(length_parts([lesson(length) for length in lengths], 16_384)) == 1
