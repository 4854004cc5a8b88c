"""What adapters cost at answering: the bank with one version and with eight mixed, beside the plain base and PEFT.

    python -m benchmarks.bank [--texts 512] [--rounds 7] [--quick] [--out FILE]

All contenders get the same token batches (32 texts in the order of the stream, padded to the longest) in fp32 on the
CPU, pool the same way and apply a head; the plain base only pools. Before anything is timed, their logits are
compared. The engine's rows go from text to scores; it makes its own batches, and so does the base beside it.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn

from benchmarks.data import CONFIG, LABELS, some_events
from benchmarks.record import announce_ratios, options_of, write_result
from benchmarks.rounds import Contender, compare, interleave
from driftline.artefact.probe import PROBE_TEXTS
from driftline.artefact.weights import Weights
from driftline.base import Base, feature, load_base
from driftline.config import FeedConfig, ServeConfig, load_config
from driftline.records import Probe
from driftline.tasks import task_named
from learner.model import LoraModel
from serving.bank import AdapterBank, pack
from serving.engine import Engine
from tests.fixtures.versions import make_manifest, random_weights

ROWS = 32
VERSIONS = 8
RANK, ALPHA = 8, 16.0
TOLERANCE = 1e-3
FEED = "f"

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class PeftBank:
    """The same versions as adapters of one PEFT model, with their heads beside it."""

    base: Base
    model: Any
    head_weight: Tensor  # (V, C, d)
    head_bias: Tensor  # (V, C)

    def one(self, batch: Batch, version: int) -> Tensor:
        """Logits (B, C), all rows by the active adapter, which is `version`."""
        hidden = self.model(input_ids=batch[0], attention_mask=batch[1]).last_hidden_state
        features = feature(hidden, batch[1], self.base.pooling)
        return nn.functional.linear(features, self.head_weight[version], self.head_bias[version])

    def mixed(self, batch: Batch, versions: Sequence[int]) -> Tensor:
        """Logits (B, C), row i by adapter `versions[i]`, as PEFT's `adapter_names` does it."""
        names = [f"v{version}" for version in versions]
        hidden = self.model(input_ids=batch[0], attention_mask=batch[1], adapter_names=names).last_hidden_state
        features = feature(hidden, batch[1], self.base.pooling)  # (B, d)
        index = torch.tensor(versions)
        return torch.bmm(self.head_weight[index], features.unsqueeze(2)).squeeze(2) + self.head_bias[index]


def peft_bank(base: Base, versions: Sequence[Weights]) -> PeftBank:
    """PEFT with one named adapter per version, the first one active, in eval mode."""
    paths = sorted({key.rpartition(".")[0] for key in versions[0].body})
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=paths)
    model = get_peft_model(copy.deepcopy(base.model), config, adapter_name="v0")
    for number, weights in enumerate(versions):
        if number:
            model.add_adapter(f"v{number}", config)
        state = {f"base_model.model.{key}.weight": value for key, value in weights.body.items()}
        set_peft_model_state_dict(model, state, adapter_name=f"v{number}")
    return PeftBank(
        base,
        model.eval(),
        torch.stack([weights.head_weight for weights in versions]),
        torch.stack([weights.head_bias for weights in versions]),
    )


def our_bank(base: Base, versions: Sequence[Weights], *, merged: bool) -> AdapterBank:
    """The versions in slots 1 to V; `merged`: slot 1 is served from merged weights, as an incumbent is."""
    bank = AdapterBank(base, slots=len(versions))
    adapters = [pack(weights, ALPHA / RANK, base.device) for weights in versions]
    for slot, adapter in enumerate(adapters, start=1):
        bank.put(slot, adapter)
    if merged:
        bank.use_merged(1, bank.merge(adapters[0]))
    return bank


def plain(base: Base, batch: Batch) -> Tensor:
    """The base's features (B, d), without any adapter or head."""
    return feature(base.model(input_ids=batch[0], attention_mask=batch[1]).last_hidden_state, batch[1], base.pooling)


def over(batches: Sequence[Batch], forward: Callable[[Batch], Tensor]) -> Callable[[], None]:
    """A contender: this forward over all batches, without gradients."""

    def work() -> None:
        with torch.inference_mode():
            for batch in batches:
                forward(batch)

    return work


def forwards(base: Base, versions: Sequence[Weights]) -> dict[str, Callable[[Batch], Tensor]]:
    """Every contender's forward by name; the plain base first."""
    merged, stacked = our_bank(base, versions, merged=True), our_bank(base, versions, merged=False)
    peft = peft_bank(base, versions)
    mix = [row % len(versions) for row in range(ROWS)]
    return {
        "plain base": partial(plain, base),
        "bank, one version, merged": lambda batch: merged.forward(*batch, [1] * len(batch[0]))[0],
        "bank, one version, stacked": lambda batch: stacked.forward(*batch, [1] * len(batch[0]))[0],
        "bank, eight versions mixed": lambda batch: stacked.forward(*batch, [1 + v for v in mix[: len(batch[0])]])[0],
        "PEFT, one adapter": lambda batch: peft.one(batch, 0),
        "PEFT, eight adapter_names mixed": lambda batch: peft.mixed(batch, mix[: len(batch[0])]),
    }


def check_agreement(found: dict[str, Callable[[Batch], Tensor]], batch: Batch) -> float:
    """The greatest difference of logits between ours and PEFT's. RuntimeError above the tolerance: nothing to time."""
    pairs = [
        ("bank, one version, merged", "PEFT, one adapter"),
        ("bank, one version, stacked", "PEFT, one adapter"),
        ("bank, eight versions mixed", "PEFT, eight adapter_names mixed"),
    ]
    with torch.inference_mode():
        worst = max(float((found[a](batch) - found[b](batch)).abs().max()) for a, b in pairs)
    if worst > TOLERANCE:
        raise RuntimeError(f"the contenders do not compute the same: their logits differ by {worst:.2e}")
    return worst


def measure_bank(base: Base, versions: Sequence[Weights], texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Forward of ready token batches, all contenders in turns."""
    batches = [base.collate(base.tokenize(texts[start : start + ROWS])) for start in range(0, len(texts), ROWS)]
    found = forwards(base, versions)
    worst = check_agreement(found, batches[0])
    seconds = interleave({name: over(batches, forward) for name, forward in found.items()}, rounds)
    return {"contenders": compare(seconds, len(texts), "plain base"), "largest_logit_difference": worst}


def measure_engine(base: Base, versions: Sequence[Weights], texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Text to scores through the engine: one live version, and eight pinned by eight requests at once."""
    section = ServeConfig(slots=VERSIONS + 2, max_queue_inputs=max(2048, 2 * len(texts)))
    engine = Engine(base, section, {FEED: FeedConfig(labels=LABELS)})
    engine.start()
    try:
        stage_all(engine, base, versions)
        parts = [texts[number :: len(versions)] for number in range(len(versions))]

        def mixed() -> None:
            futures = [engine.submit(FEED, part, number) for number, part in enumerate(parts, start=1)]
            for future in futures:
                future.result()

        contenders: dict[str, Contender] = {
            "plain base": partial(base.features, texts, section.max_batch_tokens),
            "engine, one version": partial(engine.predict, FEED, texts),
            "engine, eight versions mixed": mixed,
        }
        return {"contenders": compare(interleave(contenders, rounds), len(texts), "plain base")}
    finally:
        engine.close()


def stage_all(engine: Engine, base: Base, versions: Sequence[Weights]) -> None:
    """All versions resident, each proven by its probe; version 1 live."""
    section = next(iter(load_config(CONFIG).feed.values())).learner.model_copy(update={"rank": RANK, "alpha": ALPHA})
    trainer = LoraModel(base, task_named("classification"), LABELS, section)
    for number in [*range(2, len(versions) + 1), 1]:
        weights = versions[number - 1]
        trainer.load(weights)
        probe = Probe(logits=tuple(tuple(row) for row in trainer.predict(PROBE_TEXTS).tolist()))
        engine.stage(FEED, make_manifest(base, Path(), weights, FEED, number, probe=probe, alpha=ALPHA), weights)
        engine.activate(FEED, number, revision=number)


def run(quick: bool = False, texts: int | None = None, rounds: int | None = None) -> dict[str, Any]:
    """Both measurements as one JSON-ready document."""
    texts, rounds = texts or (64 if quick else 512), rounds or (2 if quick else 7)
    base = load_base(load_config(CONFIG).base.model_copy(update={"device": "cpu"}))
    stream, events = some_events(texts, spread=True)
    found = [str(event["text"]) for event in events]
    versions = [random_weights(base, len(LABELS), seed, rank=RANK) for seed in range(VERSIONS)]
    tokens = [len(ids) for ids in base.tokenize(found)]
    return {
        "benchmark": "bank",
        "texts": texts,
        "rounds": rounds,
        "stream": stream,
        "threads": torch.get_num_threads(),
        "mean_tokens": round(sum(tokens) / len(tokens), 1),
        "rows_per_batch": ROWS,
        "forward": measure_bank(base, versions, found, rounds),
        "engine": measure_engine(base, versions, found, rounds),
    }


def announce(result: dict[str, Any]) -> None:
    """The figures as a table."""
    announce_ratios(
        f"texts/s, fp32 on the CPU ({result['texts']} texts of {result['stream']}, {result['mean_tokens']} tokens)",
        {
            f"forward of batches of {ROWS}": result["forward"]["contenders"],
            "text to scores": result["engine"]["contenders"],
        },
        "of the plain base",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, help="how many texts a round answers (default 512)")
    parser.add_argument("--rounds", type=int, help="rounds that count (default 7)")
    options = options_of(parser, "bank")
    result = run(options.quick, options.texts, options.rounds)
    announce(result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
