"""The README of an exported folder: what it is, and code with serving's scores, without Driftline. Pure, no torch."""

from driftline.artefact.portable import CODE_FOLDER, ftfy_version
from driftline.base_source import PortableBase
from driftline.figures import Figures
from driftline.records import Manifest, iso

__all__ = ["readme"]

POOLED = {
    "mean": "(hidden * mask[..., None]).sum(1) / mask[..., None].sum(1)",
    "cls": "hidden[:, 0]",
    "last": "hidden[torch.arange(len(hidden)), mask.sum(1) - 1]",
}


def readme(manifest: Manifest, base: PortableBase) -> str:
    """Markdown. Its Python block runs as it stands, in the folder or with `FOLDER` set; a test runs it."""
    title = f"# Adapter {manifest.version} of feed {manifest.feed}"
    code = CODE.format(
        name=base.name,
        hub_id=base.hub_id,
        package=base.package,
        revision=base.revision,
        code=CODE_FOLDER,
        ftfy=ftfy_version(),
        pooled=POOLED[manifest.pooling],
        max_tokens=manifest.max_tokens,
    )
    parts = (title, _about(manifest), _how(base), f"```python\n{code}```", _files())
    return "\n\n".join(parts)


def _how(base: PortableBase) -> str:
    found = f"downloads `{base.hub_id}` from the hub" if base.hub_id else "stops and asks for it"
    if base.package:
        found = f"takes it from the installed package `{base.package.replace('_', '-')}`, else {found}"
    return (
        "The code below needs torch, transformers and peft. `scores(texts)` gives for each text the scores that "
        f"Driftline serves, label by label. It looks for the base model `{base.name}` where the environment variable "
        f"DRIFTLINE_BASE says (a folder, or a hub id); without, it {found}. It answers eight fixed texts first and "
        "compares them with the manifest, so that a wrong base is told."
    )


def _about(manifest: Manifest) -> str:
    decision = "promoted" if manifest.decision.promote else "rejected"
    measured = "".join(
        f"\n- {name}: accuracy {figures.accuracy:.3f}{_macro_f1(figures)} on {figures.n:.0f} hold-outs"
        for name, figures in sorted(manifest.evaluation.items())
    )
    return (
        f"LoRA of rank {manifest.rank} and a linear head for {len(manifest.labels)} labels, made by Driftline at "
        f"{iso(manifest.created_at)} from version {manifest.parent}; the gate: {decision}.\n{measured}".rstrip()
    )


def _macro_f1(figures: Figures) -> str:
    return "" if figures.macro_f1 is None else f", macro-F1 {figures.macro_f1:.3f}"


def _files() -> str:
    return (
        "| file | what it holds |\n|---|---|\n"
        "| `adapter_config.json`, `adapter_model.safetensors` | the LoRA, as PEFT writes it |\n"
        "| `driftline_head.safetensors` | the head: `head.weight` (labels × features), `head.bias` |\n"
        "| `manifest.json` | how it was made, signed: `document` is the manifest's exact text |\n"
        f"| `{CODE_FOLDER}/driftline_text.py`, `{CODE_FOLDER}/ftfy` | how texts are cleaned before they are scored, "
        f"with the ftfy {ftfy_version()} that does it (Apache-2.0, licence beside it; its formatting.py replaced) |\n"
        f"| `{CODE_FOLDER}/driftline_probe.py` | the eight fixed texts |\n"
    )


CODE = '''\
import importlib.util
import json
import os
import sys
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

FOLDER = Path(globals().get("FOLDER", ".")).resolve()  # this folder
BASE, HUB_ID, PACKAGE, REVISION = {name!r}, {hub_id!r}, {package!r}, {revision!r}
MAX_TOKENS, BATCH = {max_tokens}, 32

sys.path.insert(0, str(FOLDER / {code!r}))
import ftfy
from driftline_probe import PROBE_TEXTS
from driftline_text import clean_text

if ftfy.__version__ != {ftfy!r}:
    raise ImportError("another ftfy was imported before, which cleans otherwise: run this first, in a fresh process")


def find_base():
    if os.environ.get("DRIFTLINE_BASE"):
        return os.environ["DRIFTLINE_BASE"]
    if PACKAGE and importlib.util.find_spec(PACKAGE):
        return str(importlib.import_module(PACKAGE).get_model_path())
    if HUB_ID:
        return HUB_ID
    what = "a folder with its config.json, model.safetensors and tokenizer.json"
    raise FileNotFoundError(f"where is the base model {{BASE!r}}? Set the variable DRIFTLINE_BASE to {{what}}")


source = find_base()
revision = REVISION if source == HUB_ID else None
tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
base = AutoModel.from_pretrained(source, revision=revision, dtype=torch.float32)
model = PeftModel.from_pretrained(base, FOLDER).eval()
head = load_file(FOLDER / "driftline_head.safetensors")
manifest = json.loads(json.loads((FOLDER / "manifest.json").read_text("utf-8"))["document"])
labels = manifest["labels"]
pad = next(one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if one is not None)


@torch.inference_mode()
def logits(texts):
    """(texts, labels) of texts as they stand, not cleaned: softmax over the last axis gives scores."""
    ids = [tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"] or [pad] for text in texts]
    longest = max(map(len, ids))
    padded = torch.tensor([one + [pad] * (longest - len(one)) for one in ids])
    mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
    hidden = model(input_ids=padded, attention_mask=mask).last_hidden_state
    pooled = {pooled}
    features = torch.nn.functional.normalize(pooled, dim=-1) * pooled.shape[-1] ** 0.5
    return features @ head["head.weight"].T + head["head.bias"]


def scores(texts):
    """For each text a dict label -> score, as Driftline serves it. ValueError where cleaning leaves nothing."""
    cleaned = [clean_text(text) for text in texts]
    if "" in cleaned:
        raise ValueError(f"texts[{{cleaned.index('')}}]: nothing is left of it after cleaning")
    batches = [cleaned[start : start + BATCH] for start in range(0, len(cleaned), BATCH)]
    return [dict(zip(labels, row)) for batch in batches for row in logits(batch).softmax(-1).tolist()]


off = float((logits(PROBE_TEXTS) - torch.tensor(manifest["probe"]["logits"])).abs().max())
if not off <= 0.05:
    raise ValueError(f"{{source}} is not the base {{BASE!r}} of this adapter: the probe is off by {{off:.2g}}")
if off > 0.001:
    warnings.warn(f"scores may differ from serving's: the probe is off by {{off:.2g}}")

if __name__ == "__main__":
    for text, answer in zip(["a text to try"], scores(["a text to try"])):
        print(text, answer)
'''
