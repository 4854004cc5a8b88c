"""The base: finding, loading, fingerprint, tokenizing, pooling, LoRA targets."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from driftline.base import Base, feature, find_model, load_base, lora_targets, target_shapes, token_batches
from driftline.base_source import pooling_mode
from driftline.config import BaseModelConfig
from driftline.errors import BaseModelError, ConfigError

TEXTS = ["The film was great!", "bad", "worst phone of the year 2026, never again", "", "日本"]


@pytest.fixture(scope="module")
def base(tiny_base_dir: Path) -> Base:
    return load_base(BaseModelConfig(model=str(tiny_base_dir), device="cpu"))


@pytest.fixture
def copied(tiny_base_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base_dir, tmp_path / "copy"))


def fingerprint(folder: Path, **section: object) -> str:
    return load_base(BaseModelConfig.model_validate({"model": str(folder), "device": "cpu"} | section)).fingerprint


def write_decoder(folder: Path, tiny_base_dir: Path, *, kind: str) -> Path:
    """A tiny GPT-2 (its projections are Conv1D) or Qwen2, with the tiny base's tokenizer."""
    from transformers import GPT2Config, GPT2Model, Qwen2Config, Qwen2Model

    torch.manual_seed(0)
    if kind == "gpt2":
        model = GPT2Model(GPT2Config(vocab_size=200, n_positions=32, n_embd=32, n_layer=2, n_head=4))
    else:
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_key_value_heads": 2}
        model = Qwen2Model(Qwen2Config(vocab_size=200, num_attention_heads=4, max_position_embeddings=32, **sizes))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_base_dir / name, folder / name)
    return folder


def test_a_folder_and_an_installed_package_are_found(
    tiny_base_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_model(str(tiny_base_dir)) == str(tiny_base_dir)
    (tmp_path / "some_shipped_model.py").write_text(f"def get_model_path():\n    return {str(tiny_base_dir)!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_model("some-shipped-model") == str(tiny_base_dir)
    sys.modules.pop("some_shipped_model")


def test_anything_else_that_looks_like_one_is_a_hub_id() -> None:
    assert find_model("someone/some-model.v2") == "someone/some-model.v2"
    assert find_model("json") == "json"  # a package, but it ships no model


@pytest.mark.parametrize("model", ["./no/such/folder", "/no/such/folder", "a/b/c", ""])
def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_id(model: str) -> None:
    with pytest.raises(BaseModelError, match="no such folder") as error:
        find_model(model)
    assert f"base.model = {model!r}" in str(error.value)


def test_what_cannot_be_loaded_names_key_value_and_remedy(tmp_path: Path, copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    for model in ("nobody/nothing-here", str(tmp_path), str(copied)):
        with pytest.raises(BaseModelError) as error:
            load_base(BaseModelConfig(model=model, device="cpu"))
        assert f"base.model = {model!r}" in str(error.value)
        assert "give a folder" in str(error.value)


def test_an_encoder_decoder_is_refused(copied: Path) -> None:
    (copied / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 8}))
    with pytest.raises(BaseModelError, match="encoder-decoder"):
        load_base(BaseModelConfig(model=str(copied), device="cpu"))


def test_cuda_asked_for_but_absent_names_the_key(tiny_base_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"base\.device"):
        load_base(BaseModelConfig(model=str(tiny_base_dir), device="cuda"))


def test_the_base_is_frozen_and_in_eval_mode(base: Base) -> None:
    assert not base.model.training
    assert not any(one.requires_grad for one in base.model.parameters())
    assert base.model.pooler is None
    assert (base.hidden_size, base.pooling, base.max_tokens) == (32, "mean", 64)


def test_equal_files_have_equal_fingerprints(tiny_base_dir: Path, copied: Path) -> None:
    assert fingerprint(tiny_base_dir) == fingerprint(copied)


def test_every_used_part_is_in_the_fingerprint(copied: Path) -> None:
    before = fingerprint(copied)
    assert fingerprint(copied, pooling="cls") != before
    assert fingerprint(copied, max_tokens=8) == before
    weights = load_file(copied / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    changed = weights[name].clone()
    changed[0, 0] = torch.nextafter(changed[0, 0], torch.tensor(9.0))
    save_file(weights | {name: changed}, copied / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(copied) != before
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(copied) == before
    (copied / "tokenizer.json").write_text((copied / "tokenizer.json").read_text() + "\n")
    assert fingerprint(copied) != before


def test_the_unused_pooler_is_not_in_the_fingerprint(copied: Path) -> None:
    before = fingerprint(copied)
    weights = load_file(copied / "model.safetensors")
    kept = {name: one for name, one in weights.items() if not name.startswith("pooler")}
    assert len(kept) < len(weights)
    save_file(kept, copied / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(copied) == before


def test_tokens_are_those_of_the_models_own_tokenizer(base: Base) -> None:
    long = "the film " * 100
    expected = base.tokenizer([*TEXTS, long], truncation=True, max_length=base.max_tokens)["input_ids"]
    assert base.tokenize([*TEXTS, long]) == expected
    assert len(expected[-1]) == base.max_tokens
    assert base.tokenize([]) == []


def test_max_tokens_cuts_texts_and_is_bounded_by_the_positions(tiny_base_dir: Path) -> None:
    short = load_base(BaseModelConfig(model=str(tiny_base_dir), max_tokens=8, device="cpu"))
    assert len(short.tokenize(["the film " * 100])[0]) == 8
    wide = load_base(BaseModelConfig(model=str(tiny_base_dir), max_tokens=4096, device="cpu"))
    assert wide.max_tokens == 64


def test_tokenizing_from_many_threads_gives_the_same(base: Base) -> None:
    expected = base.tokenize(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(base.tokenize, [TEXTS] * 200))


def test_collate_pads_on_the_right(base: Base) -> None:
    ids, mask = base.collate([[2, 7, 3], [2]])
    assert ids.tolist() == [[2, 7, 3], [2, base.pad_id, base.pad_id]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == torch.int64


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_pooling_equals_the_naive_loop(pooling: str) -> None:
    hidden = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    lengths = [5, 2, 1]
    mask = torch.tensor([[1] * n + [0] * (5 - n) for n in lengths])
    found = feature(hidden, mask, pooling)
    for row, n in enumerate(lengths):
        states = hidden[row, :n]
        pooled = {"mean": sum(states) / n, "cls": states[0], "last": states[-1]}[pooling]
        expected = 2.0 * pooled / pooled.square().sum().sqrt()  # √4 = 2
        torch.testing.assert_close(found[row], expected)


def test_features_do_not_depend_on_the_company_in_the_batch(base: Base) -> None:
    together = base.features(TEXTS, batch_tokens=4096)
    alone = torch.cat([base.features([text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.norm(dim=1), torch.full((5,), 32.0).sqrt())
    torch.testing.assert_close(base.features(TEXTS, batch_tokens=1), alone, rtol=1e-4, atol=1e-5)


def test_token_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = [5, 64, 3, 3, 20, 1, 64, 7]
    batches = list(token_batches(lengths, 64))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 64 for batch in batches)
    assert [lengths[row] for batch in batches for row in batch] == sorted(lengths)
    assert list(token_batches([100], 10)) == [[0]]
    assert list(token_batches([], 10)) == []


def test_default_targets_are_query_and_value(base: Base) -> None:
    paths = lora_targets(base.model, ())
    assert paths == [f"encoder.layer.{n}.attention.self.{name}" for n in (0, 1) for name in ("query", "value")]
    assert target_shapes(base, paths) == dict.fromkeys(paths, (32, 32))


def test_targets_match_by_the_end_of_their_path(base: Base) -> None:
    assert lora_targets(base.model, ("1.attention.self.key",)) == ["encoder.layer.1.attention.self.key"]
    assert len(lora_targets(base.model, ("dense",))) == 6
    assert target_shapes(base, ["encoder.layer.0.intermediate.dense"]) == {
        "encoder.layer.0.intermediate.dense": (64, 32)
    }


def test_an_unknown_target_is_refused_with_what_there_is(base: Base) -> None:
    with pytest.raises(ConfigError, match=r"learner\.target_modules: 'ey' .*dense, key, query, value"):
        lora_targets(base.model, ("query", "ey"))


@pytest.mark.parametrize(
    ("kind", "targets", "shape"), [("gpt2", ["c_attn"], (96, 32)), ("qwen2", ["q_proj", "v_proj"], (32, 32))]
)
def test_a_decoder_pools_its_last_token(
    tmp_path: Path, tiny_base_dir: Path, kind: str, targets: list[str], shape: tuple[int, int]
) -> None:
    decoder = load_base(BaseModelConfig(model=str(write_decoder(tmp_path, tiny_base_dir, kind=kind)), device="cpu"))
    assert (decoder.pooling, decoder.max_tokens) == ("last", 32)
    paths = lora_targets(decoder.model, ())
    assert sorted({path.rpartition(".")[2] for path in paths}) == targets
    assert target_shapes(decoder, paths)[paths[0]] == shape
    texts = [text for text in TEXTS if text]
    alone = torch.cat([decoder.features([text]) for text in texts])
    torch.testing.assert_close(decoder.features(texts), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("section", "mode"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None),
        ({"pooling_mode_max_tokens": True}, None),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["mean", "cls"]}, None),
        ({"embedding_dimension": 3, "pooling_mode": "mean"}, "mean"),
    ],
)
def test_pooling_configs_old_and_new(section: dict[str, object], mode: str | None) -> None:
    assert pooling_mode(section) == mode


def test_the_pooling_that_the_base_was_trained_for_is_read(copied: Path) -> None:
    modules = [
        {"path": "", "type": "x.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (copied / "modules.json").write_text(json.dumps(modules))
    (copied / "1_Pooling").mkdir()
    (copied / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    assert load_base(BaseModelConfig(model=str(copied), device="cpu")).pooling == "cls"
    assert load_base(BaseModelConfig(model=str(copied), device="cpu", pooling="last")).pooling == "last"
