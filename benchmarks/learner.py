"""How fast an update trains: Driftline's `run_update` beside Hugging Face Trainer + PEFT, and where the time goes.

    python -m benchmarks.learner [--examples 512] [--rounds 3] [--quick] [--out FILE]

Same base, same LoRA (q and v, r = 8, from the same A), same pooling and head, same examples in the same batches, same
learning rate and optimizer, same dtype. The Trainer comes twice: as one uses it, with the base's own dropout, and
without dropout, which is exactly what Driftline computes (the mean losses are compared). Tokenising is not in the
examples per second; it is in the shares of time.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from benchmarks.data import CONFIG, some_events
from benchmarks.record import announce_ratios, options_of, write_result
from benchmarks.rounds import compare, interleave, shares, shares_in_words, timed_calls
from driftline.base import Base, feature, load_base
from driftline.cli.output import say
from driftline.config import LearnerConfig, load_config
from driftline.tasks import task_named
from learner.model import LoraModel, dtype_name, training_dtype
from learner.update import Lesson, UpdateResult, run_update

OURS, USUAL, SAME = "Driftline", "Trainer + PEFT", "Trainer + PEFT, no dropout"
LOSS_TOLERANCE = 0.02


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

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Mean cross-entropy and logits (B, C) of a right-padded batch (B, T)."""
        hidden = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits = self.head(feature(hidden.float(), attention_mask, self.pooling))
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
    """Both trainers on the same lessons, from the same start each time."""

    def __init__(self, base: Base, section: LearnerConfig, labels: Sequence[str], events: list[dict[str, Any]]) -> None:
        self.base, self.section = base, section
        self.texts = [str(event["text"]) for event in events]
        task = task_named("classification")
        self._targets = task.targets([event["label"] for event in events], labels)
        self._classes = len(labels)
        self._model = LoraModel(base, task, labels, section)
        self.losses: dict[str, float] = {}

    def lessons(self) -> list[Lesson]:
        """The texts as token ids with their labels."""
        tokens = self.base.tokenize(self.texts)
        return [Lesson(tokens=ids, target=target) for ids, target in zip(tokens, self._targets, strict=True)]

    def ours(self, lessons: list[Lesson]) -> float:
        """Seconds of one update from version 0."""
        self._model.load(None)
        start = time.perf_counter()
        result: UpdateResult = run_update(self._model, None, lessons, [], self.section, seed=0)
        self.losses[OURS] = result.mean_loss
        return time.perf_counter() - start

    def trainer(self, name: str, lessons: list[Lesson]) -> float:
        """Seconds of `Trainer.train()` from the same start; making model and Trainer does not count."""
        with tempfile.TemporaryDirectory() as folder:
            self._model.load(None)
            model = Classifier(self.base, self._classes, self._model, dropout=name != SAME)
            trainer = Trainer(model, self._arguments(folder), data_collator=Collator(self.base), train_dataset=lessons)
            trainer.remove_callback(PrinterCallback)
            start = time.perf_counter()
            done = trainer.train()
            seconds = time.perf_counter() - start
        self.losses[name] = done.training_loss
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


def where_time_goes(bench: Bench) -> dict[str, dict[str, float]]:
    """Shares of one run's wall time by phase, tokenising included, for Driftline and for the Trainer as one uses it."""
    common: dict[str, tuple[Any, str]] = {
        "tokenising": (Base, "tokenize"),
        "padding": (Base, "collate"),
        "backward": (Tensor, "backward"),
        "optimizer": (torch.optim.AdamW, "step"),
    }
    ours = common | {"forward": (LoraModel, "logits"), "clipping": (nn.utils, "clip_grad_norm_")}
    theirs = common | {"forward": (Classifier, "forward"), "clipping": (Accelerator, "clip_grad_norm_")}
    return {
        OURS: _profile(ours, bench, bench.ours),
        USUAL: _profile(theirs, bench, partial(bench.trainer, USUAL)),
    }


def _profile(
    phases: dict[str, tuple[Any, str]], bench: Bench, train: Callable[[list[Lesson]], float]
) -> dict[str, float]:
    with timed_calls(phases) as spent:
        start = time.perf_counter()
        lessons = bench.lessons()
        tokenising = time.perf_counter() - start
        return shares(spent, tokenising + train(lessons))


def check_losses(losses: dict[str, float]) -> None:
    """RuntimeError if the Trainer without dropout did not learn what Driftline learned: nothing to compare then."""
    if abs(losses[OURS] - losses[SAME]) > LOSS_TOLERANCE:
        raise RuntimeError(f"the contenders do not train the same: mean losses {losses}")


def run(quick: bool = False, examples: int | None = None, rounds: int | None = None) -> dict[str, Any]:
    """The comparison and the shares as one JSON-ready document."""
    examples, rounds = examples or (64 if quick else 512), rounds or (1 if quick else 3)
    config = load_config(CONFIG)
    base = load_base(config.base.model_copy(update={"device": "cpu"}))
    feed = next(iter(config.feed.values()))
    stream, events = some_events(examples, spread=True)
    bench = Bench(base, feed.learner.model_copy(update={"warmup_steps": 0}), feed.labels, events)
    lessons = bench.lessons()
    seconds = interleave(
        {
            OURS: lambda: bench.ours(lessons),
            USUAL: lambda: bench.trainer(USUAL, lessons),
            SAME: lambda: bench.trainer(SAME, lessons),
        },
        rounds,
    )
    check_losses(bench.losses)
    return {
        "benchmark": "learner",
        "examples": examples,
        "rounds": rounds,
        "stream": stream,
        "threads": torch.get_num_threads(),
        "dtype": dtype_name(training_dtype(base.device, feed.learner.dtype)),
        "mean_tokens": round(sum(len(one.tokens) for one in lessons) / examples, 1),
        "contenders": compare(seconds, examples, USUAL),
        "mean_loss": {name: round(loss, 4) for name, loss in bench.losses.items()},
        "where_time_goes": where_time_goes(bench),
    }


def announce(result: dict[str, Any]) -> None:
    """The figures as a table."""
    title = f"examples/s trained, {result['dtype']} ({result['examples']} examples, {result['mean_tokens']} tokens)"
    announce_ratios(title, {"one update": result["contenders"]}, "of the Trainer")
    for name, found in result["where_time_goes"].items():
        say(f"{name}: {shares_in_words(found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, help="examples of one update (default 512)")
    parser.add_argument("--rounds", type=int, help="rounds that count (default 3)")
    options = options_of(parser, "learner")
    result = run(options.quick, options.examples, options.rounds)
    announce(result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
