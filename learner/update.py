"""One update: one pass over fresh and replayed lessons, from a parent's weights and trainer state to a candidate's.

Guards: an update is a function (DESIGN §3.5). The same weights, state, lessons, section and seed give the same bytes on
a CPU, with the same number of threads, dtype and libraries. No clock decides anything; seconds are only reported.

Order: every batch holds fresh and replayed lessons in the ratio of their totals, fresh ones in the plan's order. A
batch is computed in parts of similar length (sorted inside the batch, cut where padding would cost more than another
pass); the parts' gradients add up to the batch's, so what a step learns from does not depend on the parts.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from driftline.artefact.weights import Weights
from driftline.config import LearnerConfig
from learner.model import LoraModel, training_dtype
from learner.moments import Moments
from learner.threads import torch_threads
from learner.trainer_state import TrainerState

BETAS = (0.9, 0.999)
PASS_TOKENS = {"cpu": 64, "cuda": 16_384}  # what one more forward and backward costs beside its tokens, in tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One example as the model takes it: token ids (not empty) and what the task's loss takes for its label."""

    tokens: list[int]
    target: Any


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UpdateResult:
    """A candidate. `state` carries the parent's reservoir and recent window unchanged (see `Strategy.remember`).

    `mean_loss` is the task's, in nats, over all `examples` (fresh and replayed), measured as they were trained.
    `finite`: no weight, moment or loss is NaN or infinite.
    """

    weights: Weights
    state: TrainerState
    mean_loss: float
    finite: bool
    steps: int
    examples: int
    seconds: float


def run_update(
    model: LoraModel,
    state: TrainerState | None,
    fresh: Sequence[Lesson],
    replayed: Sequence[Lesson],
    section: LearnerConfig,
    seed: int,
) -> UpdateResult:
    """Train `model` (which holds the parent's weights, and the candidate's afterwards) on each lesson once.

    `state` None is the state before the first update. `seed` fixes whatever the base's own forward may draw.
    """
    start = time.perf_counter()
    parent = state or TrainerState()
    model.admit(model.task.taught_rows([lesson.target for lesson in (*fresh, *replayed)], model.rows))
    optimizer = _optimizer(model, parent.optimizer, section)
    batches = batch_lessons(fresh, replayed, section.batch_examples)
    dtype = training_dtype(model.base.device, section.dtype)
    losses: list[float] = []
    cuda = [model.base.device] if model.base.device.type == "cuda" else []
    with torch_threads(section.threads), torch.random.fork_rng(cuda), torch.enable_grad():
        torch.manual_seed(seed)
        for number, batch in enumerate(batches):
            _set_rate(optimizer, section, parent.optimizer.step + number)
            losses.append(_step(model, optimizer, batch, dtype, section.max_grad_norm))
    moments = Moments(step=parent.optimizer.step + len(batches), means=_means(model, optimizer))
    mean_loss = sum(losses) / max(1, len(fresh) + len(replayed))
    return UpdateResult(
        weights=model.weights(),
        state=replace(parent, optimizer=moments),
        mean_loss=mean_loss,
        finite=math.isfinite(mean_loss) and all_finite([*model.parameters.values(), *moments.means.values()]),
        steps=len(batches),
        examples=len(fresh) + len(replayed),
        seconds=time.perf_counter() - start,
    )


def batch_lessons(fresh: Sequence[Lesson], replayed: Sequence[Lesson], batch_examples: int) -> list[list[Lesson]]:
    """Cut both into as few batches of at most `batch_examples` as hold them all, each with its share of both.

    The shares of a batch differ from exact proportion by less than one lesson. [] if there is nothing.
    """
    total = len(fresh) + len(replayed)
    count = -(-total // batch_examples)
    batches: list[list[Lesson]] = []
    for number in range(count):
        first, last = number * total // count, (number + 1) * total // count
        fresh_first, fresh_last = number * len(fresh) // count, (number + 1) * len(fresh) // count
        batches.append([*fresh[fresh_first:fresh_last], *replayed[first - fresh_first : last - fresh_last]])
    return batches


def length_parts(lessons: Sequence[Lesson], pass_tokens: int) -> list[list[Lesson]]:
    """The batch sorted by length (stable) and cut where that costs least; each part is padded on its own.

    The cost of a part is rows × longest + pass_tokens. Optimal by dynamic programming over the places to cut.
    """
    rows = sorted(lessons, key=lambda lesson: len(lesson.tokens))
    best: list[tuple[int, int]] = [(0, 0)]  # (cost of rows[:end], where its last part starts), by end
    for end in range(1, len(rows) + 1):
        longest = len(rows[end - 1].tokens)
        best.append(min((best[start][0] + (end - start) * longest + pass_tokens, start) for start in range(end)))
    parts: list[list[Lesson]] = []
    end = len(rows)
    while end:
        start = best[end][1]
        parts.append(rows[start:end])
        end = start
    return parts[::-1]


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no number in any of them is NaN or infinite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _step(
    model: LoraModel, optimizer: torch.optim.Optimizer, batch: list[Lesson], dtype: torch.dtype, max_grad_norm: float
) -> float:
    """One optimizer step; returns the batch's summed loss before it."""
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for part in length_parts(batch, PASS_TOKENS[model.base.device.type]):
        loss = _loss(model, part, dtype)
        (loss / len(batch)).backward()
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(list(model.trained.values()), max_grad_norm)
    optimizer.step()
    return total


def _loss(model: LoraModel, part: list[Lesson], dtype: torch.dtype) -> Tensor:
    """The summed loss of one part, a scalar."""
    input_ids, mask = model.base.collate([lesson.tokens for lesson in part])  # (B, T)
    logits = model.logits(input_ids, mask, dtype)  # (B, R) fp32
    return model.task.loss(logits, [lesson.target for lesson in part])


def _set_rate(optimizer: torch.optim.Optimizer, section: LearnerConfig, step: int) -> None:
    """One linear warm-up over the very first steps of the feed's life, then constant: warming up again forgets."""
    warm = min(1.0, (step + 1) / section.warmup_steps) if section.warmup_steps else 1.0
    for group in optimizer.param_groups:
        group["lr"] = section.learning_rate * warm


def _optimizer(model: LoraModel, moments: Moments, section: LearnerConfig) -> torch.optim.AdamW:
    """AdamW without weight decay, its moments and step as the parent left them."""
    optimizer = torch.optim.AdamW(
        list(model.trained.values()), lr=section.learning_rate, betas=BETAS, weight_decay=0.0, fused=True
    )
    for name, parameter in model.trained.items():
        if f"{name}.exp_avg" in moments.means:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(moments.step), device=parameter.device),
                "exp_avg": moments.means[f"{name}.exp_avg"].to(parameter.device, copy=True),
                "exp_avg_sq": moments.means[f"{name}.exp_avg_sq"].to(parameter.device, copy=True),
            }
    return optimizer


def _means(model: LoraModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}.{kind}": optimizer.state[parameter][kind].to("cpu", copy=True)
        for name, parameter in model.trained.items()
        if parameter in optimizer.state
        for kind in ("exp_avg", "exp_avg_sq")
    }
