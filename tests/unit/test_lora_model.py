"""The trainable model, against a plain forward with the LoRA product added to the weights by hand."""

import copy
from pathlib import Path

import pytest
import torch

from driftline.artefact.weights import Weights
from driftline.base import Base, load_base
from driftline.config import BaseModelConfig, LearnerConfig
from driftline.errors import ConfigError
from driftline.tasks import task_named
from learner.model import LoraModel, dtype_name, training_dtype, upper_layers

TASK = task_named("classification")
LABELS = ("a", "b", "c")

TEXTS = ["The film was great!", "bad", "worst phone of the year, never again", "slow slow slow", "日本"]


@pytest.fixture(scope="module")
def base(tiny_base_dir: Path) -> Base:
    return load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu"))


def random_weights(model: LoraModel, seed: int) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    start = model.weights()
    return Weights(
        body={name: torch.randn(one.shape, generator=generator) * 0.3 for name, one in start.body.items()},
        head_weight=torch.randn(start.head_weight.shape, generator=generator),
        head_bias=torch.randn(start.head_bias.shape, generator=generator),
    )


def by_hand(base: Base, weights: Weights, texts: list[str], scaling: float) -> torch.Tensor:
    """One text at a time through a copy of the base whose weights got W + scaling · B A."""
    merged = copy.deepcopy(base.model)
    for name in [name for name in weights.body if name.endswith(".lora_A")]:
        path = name.removesuffix(".lora_A")
        delta = scaling * weights.body[f"{path}.lora_B"] @ weights.body[name]
        merged.get_submodule(path).weight.data += delta
    rows = []
    for ids in base.tokenize(texts):
        with torch.no_grad():
            states = merged(input_ids=torch.tensor([ids])).last_hidden_state[0]
        pooled = states.mean(0)
        rows.append(weights.head_weight @ (32**0.5 * pooled / pooled.norm()) + weights.head_bias)
    return torch.stack(rows)


def test_version_zero_says_nothing(base: Base) -> None:
    model = LoraModel(base, TASK, LABELS, LearnerConfig())
    assert torch.equal(model.predict(TEXTS), torch.zeros(5, 3))
    start = model.weights()
    assert all(not one.any() for name, one in start.body.items() if name.endswith("lora_B"))
    assert all(one.any() and one.abs().max() <= 32**-0.5 for name, one in start.body.items() if name.endswith("lora_A"))


def test_the_start_depends_on_the_seed_alone(base: Base) -> None:
    first = LoraModel(base, TASK, LABELS, LearnerConfig(seed=4)).weights().body
    torch.manual_seed(99)
    again = LoraModel(base, TASK, LABELS[:2], LearnerConfig(seed=4)).weights().body
    other = LoraModel(base, TASK, LABELS, LearnerConfig(seed=5)).weights().body
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_logits_equal_the_merged_model_by_hand(base: Base) -> None:
    model = LoraModel(base, TASK, LABELS, LearnerConfig(rank=4, alpha=6.0))
    weights = random_weights(model, 1)
    model.load(weights)
    torch.testing.assert_close(model.predict(TEXTS), by_hand(base, weights, TEXTS, 6.0 / 4), rtol=1e-4, atol=1e-4)


def test_targets_beside_query_and_value(base: Base) -> None:
    model = LoraModel(base, TASK, LABELS, LearnerConfig(target_modules=("key", "output.dense")))
    weights = random_weights(model, 2)
    model.load(weights)
    assert len(weights.body) == 12
    torch.testing.assert_close(model.predict(TEXTS), by_hand(base, weights, TEXTS, 2.0), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="target_modules"):
        LoraModel(base, TASK, LABELS, LearnerConfig(target_modules=("nothing",)))


def test_loading_there_and_back_is_exact(base: Base) -> None:
    model = LoraModel(base, TASK, LABELS, LearnerConfig())
    one, other = random_weights(model, 1), random_weights(model, 2)
    model.load(one)
    first = model.predict(TEXTS)
    model.load(other)
    assert not torch.equal(model.predict(TEXTS), first)
    model.load(one)
    assert torch.equal(model.predict(TEXTS), first)
    kept = model.weights()
    assert all(torch.equal(kept.body[name], one.body[name]) for name in one.body)
    assert torch.equal(kept.head_weight, one.head_weight)
    assert torch.equal(kept.head_bias, one.head_bias)
    model.load(None)
    assert torch.equal(model.predict(TEXTS), torch.zeros(5, 3))


def test_weights_are_a_copy(base: Base) -> None:
    model = LoraModel(base, TASK, LABELS, LearnerConfig())
    kept = model.weights()
    model.load(random_weights(model, 3))
    assert not kept.head_weight.any()


def test_the_base_is_shared_and_stays_as_it_was(base: Base) -> None:
    before = {name: one.clone() for name, one in base.model.named_parameters()}
    model = LoraModel(base, TASK, LABELS, LearnerConfig())
    model.load(random_weights(model, 1))
    model.predict(TEXTS)
    after = dict(base.model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    shared = {one.data_ptr() for one in base.model.parameters()}
    own = {one.data_ptr() for one in model.parameters.values()}
    assert not shared & own
    assert not any(one.requires_grad for one in base.model.parameters())


def test_order_and_company_do_not_matter(base: Base) -> None:
    model = LoraModel(base, TASK, LABELS, LearnerConfig())
    model.load(random_weights(model, 1))
    alone = torch.cat([model.predict([text]) for text in TEXTS])
    for batch_tokens in (1, 20, 4096):
        torch.testing.assert_close(model.predict(TEXTS, batch_tokens), alone, rtol=1e-4, atol=1e-4)
    assert model.predict([]).shape == (0, 3)


FLAGS = [({"avx2"}, "float32"), ({"amx_bf16", "avx2"}, "bfloat16"), ({"avx512_bf16"}, "bfloat16"), (set(), "float32")]


@pytest.mark.parametrize(("flags", "auto"), FLAGS)
def test_the_training_dtype_is_the_configs_else_the_processors(
    flags: set[str], auto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("learner.model.cpu_flags", lambda: flags)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert dtype_name(training_dtype(cpu)) == auto
    assert training_dtype(cuda) is torch.bfloat16
    for name in ("float32", "bfloat16"):
        assert dtype_name(training_dtype(cpu, name)) == dtype_name(training_dtype(cuda, name)) == name


def test_upper_layers_are_counted_from_the_top_and_rounded_up() -> None:
    paths = [f"encoder.layer.{number}.attention.self.{name}" for number in range(12) for name in ("query", "value")]
    assert upper_layers(paths, 0.5) == set(paths[12:])
    assert upper_layers(paths, 0.05) == set(paths[-2:])
    assert upper_layers(paths, 0.26) == set(paths[16:])
    assert upper_layers(paths, 1.0) == set(paths)
    assert upper_layers(["projection", "h.0.c_attn", "h.1.c_attn"], 0.67) == {"projection", "h.0.c_attn", "h.1.c_attn"}
    assert upper_layers(["projection", "h.0.c_attn", "h.1.c_attn"], 0.66) == {"h.0.c_attn", "h.1.c_attn"}
    assert upper_layers(["a.0.b.0.query", "a.0.b.1.query"], 0.5) == {"a.0.b.0.query", "a.0.b.1.query"}
