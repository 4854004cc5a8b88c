"""What the optimizer knows of a feed: how far it is, and AdamW's two running means of each trained tensor."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from learner.bag import Share

HEAD = ("head.weight.", "head.bias.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """`Owner`. `step`: optimizer steps over all cycles (the warm-up counts on it). `means`: "NAME.exp_avg" and
    "NAME.exp_avg_sq", fp32 on the CPU, names as in `LoraModel.parameters`."""

    step: int = 0
    means: dict[str, Tensor] = field(default_factory=dict)

    def with_head(self, moved: Callable[[Tensor], Tensor]) -> "Moments":
        """Where the head's rows moved: its means moved alike, all others as they were."""
        means = {name: moved(one) if name.startswith(HEAD) else one for name, one in self.means.items()}
        return replace(self, means=means)

    def pack(self) -> Share:
        return Share(tensors=dict(self.means), facts={"step": self.step})

    @classmethod
    def unpack(cls, share: Share) -> "Moments":
        return cls(step=int(share.facts["step"]), means=dict(share.tensors))
