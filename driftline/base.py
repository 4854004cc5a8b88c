"""The frozen base model that all feeds share: loading, tokenizing, pooling, and the fingerprint that names it.

Guards: the base is never changed (no parameter takes a gradient, nobody writes into it), only safetensors are read, no
code from a model's repository is run, and two processes agree on `fingerprint` exactly if they agree on every weight
that is used, on the tokenizer, on the pooling and on the number of positions.
Not covered: encoder-decoder models, and models that need inputs beside token ids.
"""

import hashlib
import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D
from transformers.utils.logging import disable_progress_bar

from driftline.base_source import PortableBase, find_model, portable_base, read_file, trained_pooling
from driftline.config import BaseModelConfig
from driftline.errors import BaseModelError, ConfigError
from driftline.splitting import broken_words

__all__ = [
    "Base",
    "feature",
    "find_model",
    "load_base",
    "lora_targets",
    "target_shapes",
    "token_batches",
]

# What models without an entry in PEFT's table call the attention's query and value.
ATTENTION_NAMES = (("query", "value"), ("q_proj", "v_proj"), ("q_lin", "v_lin"), ("q", "v"), ("Wqkv",), ("qkv_proj",))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Base:
    """A loaded base. `model` is an AutoModel in eval mode, fp32, without gradients and without its unused pooler.
    `source`: where others find it.

    Threads: tokenize, collate and the forward of `model` may be called from several threads at once.
    """

    model: nn.Module
    tokenizer: Any
    pooling: str
    hidden_size: int
    fingerprint: str
    device: torch.device
    max_tokens: int
    encoder: Tokenizer
    pad_id: int
    source: PortableBase

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, cut to `max_tokens`; never an empty list."""
        encoded = self.encoder.encode_batch_fast(list(texts))
        return [one.ids or [self.pad_id] for one in encoded]

    def broken_words(self, texts: Sequence[str]) -> float | None:
        """The share of the words that this base sees as unknown or letter by letter; None without any word."""
        return broken_words(self.encoder, self.tokenizer.unk_token_id, texts)

    def collate(self, ids: Sequence[Sequence[int]], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """(input_ids, attention_mask), each (B, T) int64, right-padded to the longest."""
        longest = max(len(one) for one in ids)
        padded = torch.tensor([[*one, *[self.pad_id] * (longest - len(one))] for one in ids])  # (B, T)
        lengths = torch.tensor([len(one) for one in ids])  # (B,)
        mask = (torch.arange(longest) < lengths[:, None]).long()  # (B, T)
        where = device or self.device
        return padded.to(where), mask.to(where)

    @torch.inference_mode()
    def features(self, texts: Sequence[str], batch_tokens: int = 4096) -> Tensor:
        """(N, d) fp32 on the CPU: the features of the base without any adapter, each of norm √d."""
        ids = self.tokenize(texts)
        out = torch.empty(len(ids), self.hidden_size)  # (N, d)
        for rows in token_batches([len(one) for one in ids], batch_tokens):
            inputs, mask = self.collate([ids[row] for row in rows])
            hidden = self.model(input_ids=inputs, attention_mask=mask).last_hidden_state  # (B, T, d)
            out[rows] = feature(hidden, mask, self.pooling).float().cpu()
        return out


def load_base(section: BaseModelConfig) -> Base:
    """Load the base of `[base]`. BaseModelError names base.model, its value and the remedy."""
    source = find_model(section.model)
    try:
        return _load(section, source)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BaseModelError(
            f"base.model = {section.model!r}: cannot be loaded as a folder, installed package or hub id ({reason}); "
            "check the name and the network, or give a folder with config.json, model.safetensors and tokenizer.json"
        ) from error


def _load(section: BaseModelConfig, source: str) -> Base:
    config = AutoConfig.from_pretrained(source, revision=section.revision, trust_remote_code=False)
    if config.is_encoder_decoder:
        raise ValueError("it is an encoder-decoder model; use an encoder or a decoder")
    tokenizer = AutoTokenizer.from_pretrained(source, revision=section.revision, trust_remote_code=False)
    model = _load_model(section, source)
    pooling = _pooling(section, source, config)
    positions = max_positions(config)
    tokenizer_bytes = read_file(source, "tokenizer.json", section.revision)
    return Base(
        model=model,
        tokenizer=tokenizer,
        pooling=pooling,
        hidden_size=int(config.hidden_size),
        fingerprint=fingerprint(model, tokenizer_bytes or _backend(tokenizer).encode(), pooling, positions),
        device=next(model.parameters()).device,
        max_tokens=min(section.max_tokens, positions),
        encoder=_encoder(tokenizer, min(section.max_tokens, positions)),
        pad_id=_pad_id(tokenizer),
        source=portable_base(section.model, section.revision),
    )


def _load_model(section: BaseModelConfig, source: str) -> nn.Module:
    disable_progress_bar()  # it would write over the output of every process
    model = AutoModel.from_pretrained(
        source, revision=section.revision, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    if "add_pooling_layer" in inspect.signature(type(model).__init__).parameters:
        model.pooler = None  # we pool ourselves; and checkpoints without one would get a random one per process
    model.config.use_cache = False
    return model.eval().requires_grad_(False).to(pick_device(section.device))


def _pooling(section: BaseModelConfig, source: str, config: Any) -> str:
    if section.pooling != "auto":
        return section.pooling
    return trained_pooling(source, section.revision) or ("last" if is_decoder(config.model_type) else "mean")


def is_decoder(model_type: str) -> bool:
    """Whether this architecture only ever sees the text to the left, so that only the last token has seen it all."""
    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def pick_device(wanted: str) -> torch.device:
    """auto → cuda where there is one, else cpu. ConfigError if cuda is asked for and absent."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError('base.device = "cuda": no CUDA device is visible; set it to "auto" or "cpu"')
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def max_positions(config: Any) -> int:
    """How many tokens the architecture can number. RoBERTa and its kin start counting behind the padding id."""
    positions = int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 1 << 20)
    offset = config.model_type in ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer")
    return positions - ((config.pad_token_id or 0) + 1 if offset else 0)


def _encoder(tokenizer: Any, max_tokens: int) -> Tokenizer:
    """Our own copy of the fast tokenizer: transformers' wrapper resets truncation on each call, which races."""
    encoder = Tokenizer.from_str(_backend(tokenizer))
    encoder.enable_truncation(max_tokens, direction=tokenizer.truncation_side)
    encoder.no_padding()
    return encoder


def _backend(tokenizer: Any) -> str:
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError("its tokenizer has no fast version (tokenizer.json)")
    return str(tokenizer.backend_tokenizer.to_str())


def _pad_id(tokenizer: Any) -> int:
    known = [tokenizer.pad_token_id, tokenizer.eos_token_id, 0]
    return int(next(one for one in known if one is not None))


def fingerprint(model: nn.Module, tokenizer: bytes, pooling: str, positions: int) -> str:
    """sha256 over the parameters (name, dtype, shape, bytes; by name), tokenizer, pooling and positions."""
    digest = hashlib.sha256()
    for name, value in sorted(model.named_parameters()):
        data = value.detach().cpu().contiguous()
        digest.update(f"{name}|{data.dtype}|{tuple(data.shape)}|".encode())
        digest.update(data.numpy().data)
    digest.update(hashlib.sha256(tokenizer).digest())
    digest.update(f"|{pooling}|{positions}".encode())
    return digest.hexdigest()


def feature(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """√d · x/‖x‖ of the pooled states. hidden (B, T, d), mask (B, T) of a right-padded batch → (B, d)."""
    if pooling == "mean":
        weights = mask[:, :, None].to(hidden.dtype)  # (B, T, 1)
        pooled = (hidden * weights).sum(1) / weights.sum(1)
    elif pooling == "cls":
        pooled = hidden[:, 0]
    else:
        pooled = hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    return F.normalize(pooled, dim=-1) * math.sqrt(hidden.shape[-1])


def token_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Rows sorted by length (stable) and cut so that rows × longest ≤ batch_tokens; at least one row each."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batch and (len(batch) + 1) * lengths[row] > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def lora_targets(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Paths of the linear layers whose name ends with one of `names`, in module order, as PEFT matches them.

    Empty names: PEFT's default for the model type (the attention's query and value), else what the model calls them.
    ConfigError names target_modules if a name matches no linear layer.
    """
    linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]
    wanted = tuple(names) or _default_targets(model, linear)
    for name in wanted:
        if not any(_matches(path, name) for path in linear):
            known = ", ".join(sorted({path.rpartition(".")[2] for path in linear}))
            raise ConfigError(
                f"learner.target_modules: {name!r} is no linear layer of this base model; it has: {known}"
            )
    return [path for path in linear if any(_matches(path, name) for name in wanted)]


def _matches(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")


def _default_targets(model: Any, linear: Sequence[str]) -> tuple[str, ...]:
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    listed = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.model_type)
    candidates = [tuple(listed)] if isinstance(listed, list | set | tuple) else []
    for names in [*candidates, *ATTENTION_NAMES]:
        if all(any(_matches(path, name) for path in linear) for name in names):
            return names
    raise ConfigError("learner.target_modules: no default is known for this base model; name its linear layers")


def target_shapes(base: Base, paths: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Path → (out, in) of each linear layer. KeyError for a path that the base does not have."""
    modules = dict(base.model.named_modules())
    return {path: _shape(modules[path]) for path in paths}


def _shape(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    weight: Any = module.weight
    return int(weight.shape[1]), int(weight.shape[0])  # Conv1D keeps (in, out)
