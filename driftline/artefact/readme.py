"""The README of an exported folder: what it is, and code that loads body and head without Driftline. Pure, no torch."""

from driftline.records import Manifest, iso

__all__ = ["readme"]

POOLED = {
    "mean": "(hidden * mask[..., None]).sum(1) / mask[..., None].sum(1)",
    "cls": "hidden[:, 0]",
    "last": "hidden[torch.arange(len(hidden)), mask.sum(1) - 1]",
}


def readme(manifest: Manifest, base_model_name: str) -> str:
    """Markdown. Its Python block runs as it stands, in the folder's parent or with `FOLDER` set; a test runs it."""
    title = f"# Adapter {manifest.version} of feed {manifest.feed}"
    code = CODE.format(base=base_model_name, pooled=POOLED[manifest.pooling], max_tokens=manifest.max_tokens)
    return f"{title}\n\n{_about(manifest)}\n\n```python\n{code}```\n\n{_files()}"


def _about(manifest: Manifest) -> str:
    decision = "promoted" if manifest.decision.promote else "rejected"
    measured = "".join(
        f"\n- {name}: accuracy {figures['accuracy']:.3f} on {figures['n']:.0f} hold-outs"
        for name, figures in sorted(manifest.evaluation.items())
        if {"accuracy", "n"} <= set(figures)
    )
    return (
        f"LoRA of rank {manifest.rank} and a linear head for {len(manifest.labels)} labels, made by Driftline at "
        f"{iso(manifest.created_at)} from version {manifest.parent}; the gate: {decision}.\n{measured}".rstrip()
    )


def _files() -> str:
    return (
        "| file | what it holds |\n|---|---|\n"
        "| `adapter_config.json`, `adapter_model.safetensors` | the LoRA, as PEFT writes it |\n"
        "| `driftline_head.safetensors` | the head: `head.weight` (labels × features), `head.bias` |\n"
        "| `manifest.json` | how it was made, signed: `document` is the manifest's exact text |\n"
    )


CODE = '''\
import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

BASE = {base!r}
FOLDER = Path(globals().get("FOLDER", "."))  # this folder

tokenizer = AutoTokenizer.from_pretrained(BASE)
base = AutoModel.from_pretrained(BASE, dtype=torch.float32)
model = PeftModel.from_pretrained(base, FOLDER).eval()
head = load_file(FOLDER / "driftline_head.safetensors")
labels = json.loads(json.loads((FOLDER / "manifest.json").read_text("utf-8"))["document"])["labels"]


@torch.inference_mode()
def logits(texts):
    """(texts, labels): softmax over the last axis gives Driftline's scores."""
    batch = tokenizer(
        texts, padding=True, truncation=True, max_length={max_tokens}, padding_side="right", return_tensors="pt"
    )
    mask = batch["attention_mask"]
    hidden = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
    pooled = {pooled}
    features = torch.nn.functional.normalize(pooled, dim=-1) * pooled.shape[-1] ** 0.5
    return features @ head["head.weight"].T + head["head.bias"]


if __name__ == "__main__":
    for text, row in zip(["a text to try"], logits(["a text to try"]).softmax(-1)):
        print(text, dict(zip(labels, row.tolist())))
'''
