"""The bank answers as PEFT does, row by row, whatever else is in the batch. The oracle is PEFT itself."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from driftline.artefact.weights import Weights
from driftline.base import Base, load_base
from driftline.config import BaseModelConfig
from serving.bank import AdapterBank, pack
from tests.fixtures.versions import peft_logits, random_weights

TEXTS = ["good phone", "the service was slow and the room was cold, but the food was great", "bad", "not good not bad"]
ALPHA = 16.0


@pytest.fixture(scope="module")
def base(tiny_base_dir: Path) -> Base:
    return load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu"))


@pytest.fixture
def bank(base: Base) -> AdapterBank:
    return AdapterBank(base, slots=4)


def put(bank: AdapterBank, base: Base, slot: int, weights: Weights) -> None:
    rank = next(value.shape[0] for key, value in weights.body.items() if key.endswith(".lora_A"))
    bank.put(slot, pack(weights, ALPHA / rank, base.device))


def forward(bank: AdapterBank, base: Base, slots: Sequence[int], texts: Sequence[str] = TEXTS) -> torch.Tensor:
    return bank.forward(*base.collate(base.tokenize(texts)), slots)[0]


def expected(folder: Path, base: Base, weights: Weights, texts: Sequence[str] = TEXTS) -> torch.Tensor:
    return peft_logits(folder, weights, texts, alpha=ALPHA, max_tokens=base.max_tokens)


def close(answer: torch.Tensor, oracle: torch.Tensor, tolerance: float = 1e-4) -> bool:
    return bool((answer - oracle).abs().max() < tolerance)


def test_a_b_a_equals_peft(base: Base, bank: AdapterBank, tiny_base_dir: Path) -> None:
    first, second = random_weights(base, 3, seed=1), random_weights(base, 3, seed=2)
    oracle_first, oracle_second = (expected(tiny_base_dir, base, weights) for weights in (first, second))
    assert not close(oracle_first, oracle_second, 0.1)
    for weights, oracle in ((first, oracle_first), (second, oracle_second), (first, oracle_first)):
        put(bank, base, 1, weights)
        assert close(forward(bank, base, [1] * 4), oracle)


def test_a_mixed_batch_equals_single_ones(base: Base, bank: AdapterBank, tiny_base_dir: Path) -> None:
    versions = {slot: random_weights(base, 3, seed=slot) for slot in (1, 2, 3)}
    for slot, weights in versions.items():
        put(bank, base, slot, weights)
    slots = [3, 1, 0, 2]
    mixed = forward(bank, base, slots)
    for row, slot in enumerate(slots):
        oracle = expected(tiny_base_dir, base, versions[slot], TEXTS[row : row + 1]) if slot else torch.zeros(1, 3)
        assert close(mixed[row : row + 1], oracle)
        assert close(mixed[row], forward(bank, base, [slot] * 4)[row], 1e-5)


def test_merged_weights_answer_the_same(base: Base, bank: AdapterBank) -> None:
    weights = random_weights(base, 3, seed=1)
    put(bank, base, 1, weights)
    stacked = forward(bank, base, [1] * 4)
    bank.use_merged(1, bank.merge(pack(weights, ALPHA / 4, base.device)))
    assert close(forward(bank, base, [1] * 4), stacked, 1e-5)
    assert close(forward(bank, base, [1, 1, 1, 0])[:3], stacked[:3], 1e-5)
    put(bank, base, 1, random_weights(base, 3, seed=2))
    assert not close(forward(bank, base, [1] * 4), stacked, 0.1), "merged weights outlived their version"


def test_ranks_targets_and_labels_may_differ(base: Base, bank: AdapterBank, tiny_base_dir: Path) -> None:
    small = random_weights(base, 2, seed=1, rank=2)
    large = random_weights(base, 5, seed=2, rank=8, targets=("query", "key", "value", "dense"))
    put(bank, base, 1, small)
    alone = forward(bank, base, [1] * 4)
    put(bank, base, 2, large)
    mixed = forward(bank, base, [1, 2, 1, 2])
    oracle_small, oracle_large = expected(tiny_base_dir, base, small), expected(tiny_base_dir, base, large)
    assert close(alone, oracle_small)
    assert close(mixed[::2, :2], oracle_small[::2])
    assert close(mixed[1::2], oracle_large[1::2])
    assert bool((mixed[::2, 2:] == 0).all())
    put(bank, base, 2, small)  # nothing of the larger one may stay behind
    assert close(forward(bank, base, [2] * 4)[:, :2], oracle_small)


class Broken(torch.nn.Module):
    """Stands in for a layer that fails once its `left` good forwards are used up."""

    def __init__(self, layer: torch.nn.Module, left: int) -> None:
        super().__init__()
        self.layer, self.left = layer, left

    def forward(self, *args: object, **kwargs: object) -> object:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("out of memory")
        return self.layer(*args, **kwargs)


@pytest.mark.parametrize("slots", [[1, 2, 0, 1], [1] * 4])
def test_after_an_exception_the_next_answers_are_right(base: Base, bank: AdapterBank, slots: list[int]) -> None:
    put(bank, base, 1, random_weights(base, 3, seed=1))
    put(bank, base, 2, random_weights(base, 3, seed=2))
    before = [forward(bank, base, [slot] * 4) for slot in (0, 1, 2)]
    layers = bank._model.encoder.layer
    whole = layers[1]
    layers[1] = Broken(whole, left=0)
    with pytest.raises(RuntimeError, match="out of memory"):
        forward(bank, base, slots)
    layers[1] = whole
    for slot in (0, 1, 2):
        assert torch.equal(forward(bank, base, [slot] * 4), before[slot])


def test_the_base_itself_is_never_touched(base: Base, bank: AdapterBank) -> None:
    names = [name for name, _ in base.model.named_modules()]
    texts = base.features(TEXTS)
    put(bank, base, 1, random_weights(base, 3, seed=1))
    bank.use_merged(1, bank.merge(pack(random_weights(base, 3, seed=1), 4.0, base.device)))
    forward(bank, base, [1] * 4)
    assert [name for name, _ in base.model.named_modules()] == names
    assert torch.equal(base.features(TEXTS), texts)
    shared = {tensor.data_ptr() for tensor in base.model.parameters()}
    assert {tensor.data_ptr() for tensor in bank._model.parameters()} == shared, "the base's weights were copied"


def test_slot_zero_and_unknown_slots_cannot_be_written(base: Base, bank: AdapterBank) -> None:
    for slot in (0, 5, -1):
        with pytest.raises(ValueError, match="cannot be written"):
            put(bank, base, slot, random_weights(base, 3, seed=1))
