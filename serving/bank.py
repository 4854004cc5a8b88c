"""The adapter bank: the LoRA and head weights of all resident versions, stacked in slots beside one base model.

Guards that a row is computed with the weights of its own slot and nothing else, whatever else is in the batch and
whatever happened in the batch before. Slot 0 is version 0: no delta, zero head; it is never written.

Covered: mixing versions, ranks, targets and numbers of labels in one batch; exceptions inside a forward. Not covered:
concurrency. One thread calls `forward`, `put` and `use_merged` (the engine's); `pack` and `merge` only read and may
run anywhere.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from driftline.base import Base, feature

if TYPE_CHECKING:
    from driftline.artefact.weights import Weights

Merged = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """One version's weights, ready for a slot: scaling folded into B, fp32.

    `body` maps a module path to A (r, in) and B (out, r); `head_weight` is (R, d), `head_bias` (R,). `names`: the
    features (C, d) of the label names by this body, fp32; None of versions of before.
    """

    body: Mapping[str, tuple[Tensor, Tensor]]
    head_weight: Tensor
    head_bias: Tensor
    names: NDArray[np.float32] | None = None

    @property
    def rank(self) -> int:
        """The largest rank of any module; 0 for a head alone."""
        return max((a.shape[0] for a, _ in self.body.values()), default=0)


def pack(weights: "Weights", scaling: float, device: torch.device) -> Adapter:
    """Turn checked weights into an `Adapter`. `scaling` is alpha / rank. KeyError if an A has no B."""
    paths = sorted(key.removesuffix(".lora_A") for key in weights.body if key.endswith(".lora_A"))
    body = {
        path: (
            weights.body[f"{path}.lora_A"].to(device, torch.float32),
            weights.body[f"{path}.lora_B"].to(device, torch.float32) * scaling,
        )
        for path in paths
    }
    return Adapter(
        body=body,
        head_weight=weights.head_weight.to(device, torch.float32),
        head_bias=weights.head_bias.to(device, torch.float32),
        names=None if weights.names is None else weights.names.float().numpy(),
    )


class BatchContext:
    """Which slots the rows of the batch in hand use. One per bank; filled only while its `forward` runs.

    Exactly one of three is meant: `slots` (B,) for a mixed batch; `single` for a batch of one version; with `merged`
    beside `single` when that version's merged weights are to be used.
    """

    __slots__ = ("merged", "single", "slots")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.slots: Tensor | None = None
        self.single = 0
        self.merged: Merged | None = None


def plain_weight(linear: nn.Module) -> Tensor:
    """The weight as (out, in), also of transformers' Conv1D, which keeps it transposed."""
    weight: Tensor = linear.weight.T if isinstance(linear, Conv1D) else linear.weight  # type: ignore[assignment]
    return weight


class BankedLinear(nn.Module):
    """A frozen linear layer plus the delta of each row's slot: A is (S, r, in), B is (S, out, r), zero padded."""

    def __init__(self, path: str, linear: nn.Module, context: BatchContext, slots: int) -> None:
        super().__init__()
        self.path = path
        self.linear = linear
        self._context = context
        weight = plain_weight(linear)
        self._bias: Tensor | None = linear.bias  # type: ignore[assignment]
        self.lora_a = weight.new_zeros((slots, 0, weight.shape[1]))
        self.lora_b = weight.new_zeros((slots, weight.shape[0], 0))

    def grow(self, rank: int) -> None:
        """Make room for adapters of this rank; what is in the slots stays."""
        missing = rank - self.lora_a.shape[1]
        self.lora_a = functional.pad(self.lora_a, (0, 0, 0, missing))
        self.lora_b = functional.pad(self.lora_b, (0, missing))

    def put(self, slot: int, pair: tuple[Tensor, Tensor] | None) -> None:
        """Write A (r, in) and B (out, r), or no delta at all."""
        self.lora_a[slot].zero_()
        self.lora_b[slot].zero_()
        if pair is not None:
            a, b = pair
            self.lora_a[slot, : a.shape[0]] = a
            self.lora_b[slot, :, : b.shape[1]] = b

    def forward(self, x: Tensor) -> Tensor:
        """(B, …, in) → (B, …, out)."""
        context = self._context
        if context.slots is not None:
            return self.linear(x) + self._mixed(x, context.slots)
        if context.merged is not None and self.path in context.merged:
            return functional.linear(x, context.merged[self.path], self._bias)
        if context.merged is not None or context.single == 0:
            return self.linear(x)
        low = functional.linear(x, self.lora_a[context.single])
        return self.linear(x) + functional.linear(low, self.lora_b[context.single])

    def _mixed(self, x: Tensor, slots: Tensor) -> Tensor:
        if x.shape[0] != slots.shape[0]:
            raise RuntimeError(
                f"{self.path}: {x.shape[0]} rows for {slots.shape[0]} slots; the base reshapes its batch"
            )
        rows = x.reshape(x.shape[0], -1, x.shape[-1])  # (B, T, in)
        low = torch.bmm(rows, self.lora_a[slots].transpose(1, 2))  # (B, T, r)
        delta = torch.bmm(low, self.lora_b[slots].transpose(1, 2))  # (B, T, out)
        return delta.reshape(*x.shape[:-1], delta.shape[-1])


class AdapterBank:
    """A copy of the base model's structure (its weights are shared, never written) with `slots` + 1 slots."""

    def __init__(self, base: Base, slots: int) -> None:
        self._base = base
        self._slots = slots + 1
        self._context = BatchContext()
        self._model = _same_weights(base.model)
        self._linears: dict[str, BankedLinear] = {}
        self._rank = 0
        self._merged: dict[int, Merged] = {}
        self._head_weight = torch.zeros((self._slots, 0, base.hidden_size), device=base.device)  # (S, C, d)
        self._head_bias = torch.zeros((self._slots, 0), device=base.device)  # (S, C)

    @property
    def slots(self) -> range:
        """The slots that may be written."""
        return range(1, self._slots)

    def put(self, slot: int, adapter: Adapter) -> None:
        """Write an adapter into a slot that no waiting row uses. Grows the stacks where it must."""
        if slot not in self.slots:
            raise ValueError(f"slot {slot} cannot be written: use 1 to {self._slots - 1}")
        self._make_room(adapter)
        self._merged.pop(slot, None)
        for path, linear in self._linears.items():
            linear.put(slot, adapter.body.get(path))
        self._head_weight[slot].zero_()
        self._head_bias[slot].zero_()
        classes = adapter.head_bias.shape[0]
        self._head_weight[slot, :classes] = adapter.head_weight
        self._head_bias[slot, :classes] = adapter.head_bias

    def merge(self, adapter: Adapter) -> Merged:
        """W + BA for each target: {module path: (out, in)}. Reads only; run it outside the batch loop."""
        merged = {}
        with torch.inference_mode():
            for path, (a, b) in adapter.body.items():
                weight = plain_weight(self._base.model.get_submodule(path))  # (out, in)
                merged[path] = torch.addmm(weight, b.to(weight.device), a.to(weight.device))
        return merged

    def use_merged(self, slot: int, merged: Merged | None) -> None:
        """Serve batches of this slot alone from merged weights (None: from the stacks again). Flips one reference."""
        if merged is None:
            self._merged.pop(slot, None)
        else:
            self._merged[slot] = merged

    def forward(self, input_ids: Tensor, attention_mask: Tensor, slots: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Logits (B, C_max) and features (B, d), fp32 on the base's device; row i with slot `slots[i]`; classes beyond
        a version's are 0.

        `input_ids` and `attention_mask` are (B, T), right-padded. After an exception the bank is as before.
        """
        single = slots[0] if len(set(slots)) == 1 else None
        index = torch.tensor(slots, device=input_ids.device)  # (B,) int64
        context = self._context
        try:
            if single is None:
                context.slots = index
            else:
                context.single = single
                context.merged = self._merged.get(single)
            with torch.inference_mode():
                hidden = self._model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
                features = feature(hidden, attention_mask, self._base.pooling).float()  # (B, d)
                return self._head(features, index, single), features
        finally:
            context.clear()

    def _head(self, features: Tensor, index: Tensor, single: int | None) -> Tensor:
        if single is not None:
            return functional.linear(features, self._head_weight[single], self._head_bias[single])
        logits = torch.bmm(self._head_weight[index], features.unsqueeze(2)).squeeze(2)  # (B, C)
        return logits + self._head_bias[index]

    def _make_room(self, adapter: Adapter) -> None:
        if adapter.rank > self._rank:
            self._rank = adapter.rank
            for linear in self._linears.values():
                linear.grow(self._rank)
        for path in adapter.body:
            if path not in self._linears:
                self._wrap(path)
        missing = adapter.head_bias.shape[0] - self._head_bias.shape[1]
        if missing > 0:
            self._head_weight = functional.pad(self._head_weight, (0, 0, 0, missing))
            self._head_bias = functional.pad(self._head_bias, (0, missing))

    def _wrap(self, path: str) -> None:
        parent, _, name = path.rpartition(".")
        banked = BankedLinear(path, self._model.get_submodule(path), self._context, self._slots)
        banked.grow(self._rank)
        setattr(self._model.get_submodule(parent), name, banked)
        self._linears[path] = banked


def _same_weights(model: nn.Module) -> nn.Module:
    """The modules copied, the tensors shared: wrapping layers here must not be seen by whoever else has the base."""
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    copied: nn.Module = copy.deepcopy(model, memo)
    return copied.eval()
