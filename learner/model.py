"""What an update trains: the base with LoRA in its attention, the base's own pooling, and one linear head.

logits = W · (√d · x/‖x‖) + b with W = b = 0 at the start (DESIGN §4). The body is a clone of the base's modules that
shares the base's frozen tensors, so that neither training nor evaluation can change what serving uses. Everything runs
in eval mode, training too: no dropout, hence the fused attention, and equal bytes for equal inputs on a CPU.
"""

import copy
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from driftline.artefact.weights import Weights
from driftline.base import Base, feature, lora_targets, target_shapes, token_batches
from driftline.config import LearnerConfig
from driftline.experts.head import UNTRAINED
from driftline.tasks import Task

ADAPTER = "default"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}


class LoraModel:
    """A base with one trainable adapter and head. One thread at a time.

    `parameters` maps the names of `Weights` ("PATH.lora_A", "PATH.lora_B", then "head.weight", "head.bias") to the
    tensors, in a fixed order. `trained` are those that an update may move, the upper layers' and the head's; the others
    take no gradient, so that no graph is kept of the layers below. `rows`: R, how many the head has.
    """

    def __init__(self, base: Base, task: Task, labels: Sequence[str], section: LearnerConfig) -> None:
        """A head of as many rows R as the task wants for `labels`. ConfigError if learner.target_modules names no layer
        of the base."""
        self.base = base
        self.task = task
        self.section = section
        self.rows = rows = task.rows(labels)
        self.target_paths = lora_targets(base.model, section.target_modules)
        self._shapes = target_shapes(base, self.target_paths)
        self._body = _with_lora(_clone(base.model), self.target_paths, section)
        self._head_weight = nn.Parameter(torch.zeros(rows, base.hidden_size, device=base.device))  # (R, d)
        self._head_bias = nn.Parameter(torch.zeros(rows, device=base.device))  # (R,)
        self.parameters: dict[str, nn.Parameter] = {
            **_lora_parameters(self._body, self.target_paths),
            "head.weight": self._head_weight,
            "head.bias": self._head_bias,
        }
        upper = upper_layers(self.target_paths, section.trained_share) | {"head"}
        self.trained = {name: one for name, one in self.parameters.items() if name.rpartition(".")[0] in upper}
        for name, parameter in self.parameters.items():
            parameter.requires_grad_(name in self.trained)
        self.load(None)

    def load(self, weights: Weights | None) -> None:
        """Take over these weights; None is the start of version 0: A drawn with the section's seed, B and head zero."""
        body = initial_body(self._shapes, self.section) if weights is None else weights.body
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(body[name]) if name in body else parameter.zero_()
            if weights is not None:
                self._head_weight.copy_(weights.head_weight)
                self._head_bias.copy_(weights.head_bias)

    def admit(self, rows: Collection[int]) -> None:
        """Of the head's rows that have learned nothing yet, let these take part in the answer, from zero; the others
        stay out of it: with a probability of 0 they get no gradient either, and go on knowing nothing."""
        with torch.no_grad():
            blank = (self._head_weight == 0).all(dim=1)  # (R,)
            taught = torch.zeros_like(blank)
            taught[list(rows)] = True
            self._head_bias[blank & ~taught] = UNTRAINED
            self._head_bias[blank & taught] = 0.0

    def weights(self) -> Weights:
        """A copy of the current weights, fp32 on the CPU."""
        copied = {name: one.detach().to("cpu", torch.float32, copy=True) for name, one in self.parameters.items()}
        head_weight, head_bias = copied.pop("head.weight"), copied.pop("head.bias")
        return Weights(body=copied, head_weight=head_weight, head_bias=head_bias)

    def logits(self, input_ids: Tensor, mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The head's outputs (B, R), fp32, from a right-padded batch (B, T) and its mask. `dtype` bf16: the body under
        autocast."""
        with torch.autocast(input_ids.device.type, dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            hidden = self._body(input_ids=input_ids, attention_mask=mask).last_hidden_state  # (B, T, d)
        features = feature(hidden.float(), mask, self.base.pooling)  # (B, d)
        return nn.functional.linear(features, self._head_weight, self._head_bias)

    @torch.inference_mode()
    def features(self, texts: Sequence[str]) -> Tensor:
        """(N, d), fp32 on the CPU, each of norm √d."""
        input_ids, mask = self.base.collate(self.base.tokenize(texts))  # (N, T)
        hidden = self._body(input_ids=input_ids, attention_mask=mask).last_hidden_state  # (N, T, d)
        return feature(hidden.float(), mask, self.base.pooling).cpu()

    def predict(self, texts: Sequence[str], batch_tokens: int = 4096) -> Tensor:
        """Logits (N, R), fp32 on the CPU, in the order of `texts`; batches of at most `batch_tokens` padded tokens."""
        return self.predict_tokens(self.base.tokenize(texts), batch_tokens)

    @torch.inference_mode()
    def predict_tokens(self, ids: Sequence[Sequence[int]], batch_tokens: int = 4096) -> Tensor:
        """As `predict`, from token ids."""
        out = torch.empty(len(ids), len(self._head_bias))  # (N, R)
        for rows in token_batches([len(one) for one in ids], batch_tokens):
            out[rows] = self.logits(*self.base.collate([ids[row] for row in rows])).float().cpu()
        return out


def _clone(model: nn.Module) -> nn.Module:
    """The same modules again around the same tensors: a new adapter costs no copy of the base's weights."""
    shared = {id(one): one for one in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(model, memo=dict(shared))


def _with_lora(model: nn.Module, paths: Sequence[str], section: LearnerConfig) -> nn.Module:
    transposed = any(isinstance(model.get_submodule(path), Conv1D) for path in paths)
    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=0.0,
        target_modules=list(paths),
        fan_in_fan_out=transposed,
    )
    return inject_adapter_in_model(config, model, adapter_name=ADAPTER).eval()


def _lora_parameters(body: nn.Module, paths: Sequence[str]) -> dict[str, nn.Parameter]:
    found: dict[str, nn.Parameter] = {}
    for path in paths:
        layer: Any = body.get_submodule(path)
        found[f"{path}.lora_A"] = layer.lora_A[ADAPTER].weight  # (r, in)
        found[f"{path}.lora_B"] = layer.lora_B[ADAPTER].weight  # (out, r)
    return found


def upper_layers(paths: Sequence[str], share: float) -> set[str]:
    """Those of the paths that lie in the upper `share` of the layers (rounded up) which have any. A layer is known by
    the first number in its path; what has none lies below all."""
    numbers = {path: next((int(part) for part in path.split(".") if part.isdecimal()), -1) for path in paths}
    layers = sorted(set(numbers.values()))
    upper = set(layers[len(layers) - math.ceil(share * len(layers)) :])
    return {path for path, number in numbers.items() if number in upper}


def initial_body(shapes: dict[str, tuple[int, int]], section: LearnerConfig) -> dict[str, Tensor]:
    """Where every feed starts: A ~ U(−1/√in, 1/√in) from the seed alone (PEFT's kaiming_uniform(√5)), B = 0."""
    generator = torch.Generator().manual_seed(section.seed)
    body: dict[str, Tensor] = {}
    for path, (rows, columns) in shapes.items():
        uniform = torch.rand(section.rank, columns, generator=generator)  # (r, in)
        body[f"{path}.lora_A"] = (2 * uniform - 1) / math.sqrt(columns)
        body[f"{path}.lora_B"] = torch.zeros(rows, section.rank)
    return body


def training_dtype(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """`wanted` is learner.dtype. auto: bf16 on CUDA and on CPUs whose flags name it, else fp32; read from the machine,
    never timed. The other two hold anywhere: without the instructions bf16 is slow, not different in kind."""
    if wanted != "auto":
        return DTYPES[wanted]
    if device.type == "cuda":
        return torch.bfloat16
    return torch.bfloat16 if cpu_flags() & BF16_FLAGS else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """As learner.dtype, the manifest and the report write it: `float32` or `bfloat16`."""
    return str(dtype).removeprefix("torch.")


def cpu_flags() -> set[str]:
    """The first core's feature flags; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    named = (line.partition(":") for line in lines)
    return next((set(flags.split()) for name, _, flags in named if name.strip() in ("flags", "Features")), set())
