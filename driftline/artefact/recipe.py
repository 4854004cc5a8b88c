"""The recipe: what it takes to make a version again, as a part of it. No torch.

An update is a function of its parent, the ordered plan, what it learned by, the seed and the machine's arithmetic
(DESIGN §3.5); all of that stands here. So on the same kind of CPU, with the same libraries and the same buffer, the
recipe and the parent give body and head again, byte for byte. Covered: example numbers, settings, names of classes. Not
covered: texts and labels of the examples; they stay in the buffer, so that what is forgotten there is forgotten.
"""

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from driftline.base_source import PortableBase
from driftline.errors import ArtefactError
from driftline.records import Plan

__all__ = ["RECIPE_FORMAT", "Recipe", "decode_recipe", "encode_recipe"]

RECIPE_FORMAT = 1
PLAN = ("fresh", "replayed", "retired")
_json = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a version was made from version `parent` of the same feed; 0 is the base with the start that `seed` of
    `settings` draws.

    `plan`: example numbers of the buffer, in training order. `settings`: what the feed's config said of task, labels
    and learner, every key. `seed`, `threads` and `dtype`: what the update ran with. `device`: cpu, or the accelerator's
    name. `cpu_flags`: of the first core, sorted; none where the system does not tell. `libraries`: name → version,
    Driftline and Python among them. `base`: where others find it; `base_fingerprint` says whether it is that.
    """

    parent: int
    plan: Plan
    settings: dict[str, Any]
    seed: int
    threads: int
    dtype: str
    device: str
    cpu_flags: tuple[str, ...]
    libraries: dict[str, str]
    base: PortableBase
    base_fingerprint: str
    pooling: str
    max_tokens: int
    format: int = RECIPE_FORMAT


def encode_recipe(recipe: Recipe) -> bytes:
    """Canonical JSON: equal recipes give equal bytes. A number of the plan takes one to four bytes."""
    fields = msgspec.to_builtins(recipe)
    fields["plan"] = {name: _packed(getattr(recipe.plan, name)) for name in PLAN}
    return _json.encode(fields)


def decode_recipe(data: bytes) -> Recipe:
    """The inverse of `encode_recipe`, exact. ArtefactError(unreadable) for anything else, a newer format by name."""
    try:
        fields = msgspec.json.decode(data, type=dict[str, Any])
        if fields["format"] != RECIPE_FORMAT:
            raise ValueError(f"format {fields['format']}, this Driftline reads {RECIPE_FORMAT}")
        fields["plan"] = {name: _unpacked(fields["plan"][name]) for name in PLAN}
        return msgspec.convert(fields, type=Recipe)
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError("unreadable", f"not a recipe: {error}") from None


def _packed(numbers: Sequence[int]) -> str:
    """Differences between neighbours, small ones most of the time, as zigzag LEB128 in base64: one byte for a number
    that follows the one before it, three for one drawn from a million."""
    data = bytearray()
    before = 0
    for number in numbers:
        step = number - before
        before = number
        rest = 2 * step if step >= 0 else -2 * step - 1
        while rest > 0x7F:
            data.append(rest & 0x7F | 0x80)
            rest >>= 7
        data.append(rest)
    return base64.b64encode(data).decode()


def _unpacked(text: str) -> tuple[int, ...]:
    """The inverse of `_packed`. ValueError if it is none."""
    try:
        return tuple(_numbers(base64.b64decode(text, validate=True)))
    except binascii.Error as error:
        raise ValueError(f"numbers that are no base64 ({error})") from None


def _numbers(data: bytes) -> Iterator[int]:
    number = rest = shift = 0
    for byte in data:
        rest |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            number += rest // 2 if rest % 2 == 0 else -(rest + 1) // 2
            yield number
            rest = shift = 0
    if shift:
        raise ValueError("numbers that were cut")
