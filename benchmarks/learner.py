"""How fast an update trains: Driftline's `run_update` beside Hugging Face Trainer + PEFT, and where the time goes.

    python -m benchmarks.learner [--examples 512] [--rounds 3] [--learned 2048] [--seeds 3] [--quick] [--out FILE]

Same base, same LoRA (q and v, r = 8, from the same A), same pooling and head, same examples in the same batches, same
learning rate and optimizer, same dtype. Each comes twice. Driftline: as it is by default, all layers, and with LoRA
trained in their upper half (`learner.trained_share = 0.5`). The Trainer: as one uses it, all layers and the base's own
dropout, and without dropout, which is exactly what Driftline computes (the mean losses are compared). Tokenising is not
in the examples per second; it is in the shares of time.

What the speed costs stands beside it: each trains on so many examples from all over the stream, once for each seed, and
answers texts that none of them has seen.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from benchmarks.data import CONFIG, some_events, unseen_events
from benchmarks.record import announce_ratios, options_of, write_result
from benchmarks.rounds import Spread, compare, interleave, shares, shares_in_words, timed_calls
from driftline.base import Base, feature, load_base, token_batches
from driftline.cli.output import print_table, say
from driftline.config import LearnerConfig, load_config
from driftline.tasks import task_named
from learner.model import LoraModel, dtype_name, training_dtype
from learner.update import Lesson, UpdateResult, run_update

OURS, HALF = "Driftline", "Driftline, upper half"
SHARES = {OURS: 1.0, HALF: 0.5}
USUAL, SAME = "Trainer + PEFT", "Trainer + PEFT, no dropout"
TRAINERS = (USUAL, SAME)
LOSS_TOLERANCE = 0.02

Scorer = Callable[[Tensor, Tensor], Tensor]


class Classifier(nn.Module):
    """Our model's shape as the Trainer takes it: PEFT around the base, its pooling, one linear head from zero."""

    def __init__(self, base: Base, classes: int, ours: LoraModel, *, dropout: bool) -> None:
        super().__init__()
        section = ours.section
        config = LoraConfig(
            r=section.rank, lora_alpha=section.alpha, lora_dropout=0.0, target_modules=list(ours.target_paths)
        )
        self.body = get_peft_model(copy.deepcopy(base.model), config)
        state = {f"base_model.model.{name}.weight": value for name, value in ours.weights().body.items()}
        set_peft_model_state_dict(self.body, state)
        self.head = nn.Linear(base.hidden_size, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.pooling = base.pooling
        if not dropout:
            for module in self.body.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, C) of a right-padded batch (B, T)."""
        hidden = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.head(feature(hidden.float(), attention_mask, self.pooling))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean cross-entropy and logits (B, C) of a right-padded batch (B, T)."""
        logits = self.logits(input_ids, attention_mask)
        return {"loss": nn.functional.cross_entropy(logits.float(), labels), "logits": logits}


class Collator:
    """Pads a batch to its longest text, as the Trainer's own collators do."""

    def __init__(self, base: Base) -> None:
        self._base = base

    def __call__(self, lessons: Sequence[Lesson]) -> dict[str, Tensor]:
        input_ids, mask = self._base.collate([lesson.tokens for lesson in lessons])
        labels = torch.tensor([lesson.target for lesson in lessons])
        return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


class Bench:
    """All contenders, from the same start each time. `losses` and `scorers` are what each trained last came to."""

    def __init__(self, base: Base, section: LearnerConfig, labels: Sequence[str]) -> None:
        self.base, self.section, self.labels = base, section, labels
        self._task = task_named("classification")
        self._models = {name: self._model(share) for name, share in SHARES.items()}
        self.losses: dict[str, float] = {}
        self.scorers: dict[str, Scorer] = {}

    def lessons(self, events: Sequence[dict[str, Any]]) -> list[Lesson]:
        """The texts as token ids with their labels."""
        targets = self._task.targets([event["label"] for event in events], self.labels)
        tokens = self.base.tokenize([str(event["text"]) for event in events])
        return [Lesson(tokens=ids, target=target) for ids, target in zip(tokens, targets, strict=True)]

    def train(self, name: str, lessons: list[Lesson]) -> float:
        """Seconds in which the contender learned the lessons, from the start."""
        return self._trainer(name, lessons) if name in TRAINERS else self._ours(name, lessons)

    @torch.inference_mode()
    def accuracy(self, name: str, lessons: list[Lesson]) -> float:
        """The share of the lessons that the contender, as it was trained last, answers right; in fp32."""
        right = 0
        for rows in token_batches([len(one.tokens) for one in lessons], 4096):
            logits = self.scorers[name](*self.base.collate([lessons[row].tokens for row in rows]))  # (B, C)
            right += int((logits.argmax(1) == torch.tensor([lessons[row].target for row in rows])).sum())
        return right / len(lessons)

    def _model(self, share: float) -> LoraModel:
        section = self.section.model_copy(update={"trained_share": share})
        return LoraModel(self.base, self._task, self.labels, section)

    def _ours(self, name: str, lessons: list[Lesson]) -> float:
        """One update from version 0."""
        model = self._models[name]
        model.load(None)
        start = time.perf_counter()
        result: UpdateResult = run_update(model, None, lessons, [], model.section, seed=0)
        seconds = time.perf_counter() - start
        self.losses[name], self.scorers[name] = result.mean_loss, model.logits
        return seconds

    def _trainer(self, name: str, lessons: list[Lesson]) -> float:
        """`Trainer.train()` from the same start; making model and Trainer does not count."""
        with tempfile.TemporaryDirectory() as folder:
            self._models[OURS].load(None)
            model = Classifier(self.base, len(self.labels), self._models[OURS], dropout=name != SAME)
            trainer = Trainer(model, self._arguments(folder), data_collator=Collator(self.base), train_dataset=lessons)
            trainer.remove_callback(PrinterCallback)
            start = time.perf_counter()
            done = trainer.train()
            seconds = time.perf_counter() - start
        self.losses[name], self.scorers[name] = done.training_loss, model.eval().logits
        return seconds

    def _arguments(self, folder: str) -> TrainingArguments:
        section = self.section
        return TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=section.batch_examples,
            num_train_epochs=1,
            learning_rate=section.learning_rate,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=section.max_grad_norm,
            train_sampling_strategy="sequential",
            bf16=training_dtype(self.base.device, section.dtype) is torch.bfloat16,
            seed=section.seed,
            use_cpu=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )


def where_time_goes(bench: Bench, events: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Shares of one run's wall time by phase, tokenising included, of Driftline and of the Trainer as one uses it."""
    common: dict[str, tuple[Any, str]] = {
        "tokenising": (Base, "tokenize"),
        "padding": (Base, "collate"),
        "backward": (Tensor, "backward"),
        "optimizer": (torch.optim.AdamW, "step"),
    }
    ours = common | {"forward": (LoraModel, "logits"), "clipping": (nn.utils, "clip_grad_norm_")}
    theirs = common | {"forward": (Classifier, "forward"), "clipping": (Accelerator, "clip_grad_norm_")}
    found = {}
    for name, phases in {OURS: ours, USUAL: theirs}.items():
        with timed_calls(phases) as spent:
            start = time.perf_counter()
            lessons = bench.lessons(events)
            tokenising = time.perf_counter() - start
            found[name] = shares(spent, tokenising + bench.train(name, lessons))
    return found


def quality(
    base: Base, section: LearnerConfig, labels: Sequence[str], learned: int, seeds: int, tested: int | None
) -> dict[str, Any]:
    """What each contender learns of `learned` examples from all over the stream, one pass: accuracy on texts that none
    has seen, over the seeds."""
    _, events = some_events(learned, spread=True)
    found: dict[str, list[float]] = {name: [] for name in (*SHARES, *TRAINERS)}
    for seed in range(seeds):
        bench = Bench(base, section.model_copy(update={"seed": seed}), labels)
        lessons, test = bench.lessons(events), bench.lessons(unseen_events(tested))
        for name, accuracies in found.items():
            bench.train(name, lessons)
            accuracies.append(bench.accuracy(name, test))
    return {
        "learned": learned,
        "tested": len(test),
        "seeds": seeds,
        "accuracy": {name: Spread.of(accuracies).document() for name, accuracies in found.items()},
        "points_ahead": {
            name: round(100 * (mean(accuracies) - mean(found[USUAL])), 2) for name, accuracies in found.items()
        },
    }


def check_losses(losses: dict[str, float]) -> None:
    """RuntimeError if the Trainer without dropout did not learn what Driftline learned: nothing to compare then."""
    if abs(losses[OURS] - losses[SAME]) > LOSS_TOLERANCE:
        raise RuntimeError(f"the contenders do not train the same: mean losses {losses}")


def run(
    quick: bool = False,
    examples: int | None = None,
    rounds: int | None = None,
    learned: int | None = None,
    seeds: int | None = None,
) -> dict[str, Any]:
    """The comparison, the shares and the accuracies as one JSON-ready document."""
    examples, rounds = examples or (64 if quick else 512), rounds or (1 if quick else 3)
    learned, seeds = learned or (64 if quick else 2048), seeds or (1 if quick else 3)
    config = load_config(CONFIG)
    base = load_base(config.base.model_copy(update={"device": "cpu"}))
    feed = next(iter(config.feed.values()))
    section = feed.learner.model_copy(update={"warmup_steps": 0})
    stream, events = some_events(examples, spread=True)
    bench = Bench(base, section, feed.labels)
    lessons = bench.lessons(events)
    seconds = interleave({name: partial(bench.train, name, lessons) for name in (*SHARES, *TRAINERS)}, rounds)
    check_losses(bench.losses)
    return {
        "benchmark": "learner",
        "examples": examples,
        "rounds": rounds,
        "stream": stream,
        "threads": torch.get_num_threads(),
        "dtype": dtype_name(training_dtype(base.device, section.dtype)),
        "trained_share": SHARES,
        "mean_tokens": round(sum(len(one.tokens) for one in lessons) / examples, 1),
        "contenders": compare(seconds, examples, USUAL),
        "mean_loss": {name: round(loss, 4) for name, loss in bench.losses.items()},
        "holdout": quality(base, section, feed.labels, learned, seeds, 64 if quick else None),
        "where_time_goes": where_time_goes(bench, events),
    }


def announce(result: dict[str, Any]) -> None:
    """The figures as a table."""
    title = f"examples/s trained, {result['dtype']} ({result['examples']} examples, {result['mean_tokens']} tokens)"
    announce_ratios(title, {"one update": result["contenders"]}, "of the Trainer")
    for name, found in result["where_time_goes"].items():
        say(f"{name}: {shares_in_words(found)}")
    holdout = result["holdout"]
    rows = [
        (name, f"{one['median']:.4f}", f"{one['low']:.4f} – {one['high']:.4f}", f"{ahead:+.2f}")
        for (name, one), ahead in zip(holdout["accuracy"].items(), holdout["points_ahead"].values(), strict=True)
    ]
    columns = ("", ">accuracy", ">lowest – highest", ">points ahead of the Trainer, mean")
    print()
    title = f"{holdout['tested']} unseen texts after {holdout['learned']} examples, {holdout['seeds']} seeds"
    print_table(columns, rows, title=title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, help="examples of one update (default 512)")
    parser.add_argument("--rounds", type=int, help="rounds that count (default 3)")
    parser.add_argument("--learned", type=int, help="examples learned before the exam (default 2048)")
    parser.add_argument("--seeds", type=int, help="how often (default 3)")
    options = options_of(parser, "learner")
    result = run(options.quick, options.examples, options.rounds, options.learned, options.seeds)
    announce(result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
