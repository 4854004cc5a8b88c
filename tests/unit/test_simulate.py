"""The simulated feed: repeatable, in the shape of an events file, and as hard as it says."""

import json
from collections import Counter
from itertools import pairwise

from driftline.records import utc
from replay.lexicon import PRODUCTS, SLANG
from replay.simulate import LABELS, Simulation, simulate


def test_the_same_seed_gives_the_same_events() -> None:
    first = list(simulate(Simulation(events=300, seed=5)))
    assert first == list(simulate(Simulation(events=300, seed=5)))
    assert first != list(simulate(Simulation(events=300, seed=6)))


def test_events_have_the_shape_of_an_events_file() -> None:
    events = list(simulate(Simulation(events=400)))
    assert len({event["id"] for event in events}) == 400
    for event in events:
        json.dumps(event)
        assert event["text"].strip()
        assert event["label"] in (*LABELS, None)
        assert ("label_at" in event) == (event["label"] is not None)
        assert "{it}" not in event["text"]


def test_time_never_goes_backwards_and_labels_come_after_their_event() -> None:
    events = list(simulate(Simulation(events=400)))
    assert all(utc(a["timestamp"]) <= utc(b["timestamp"]) for a, b in pairwise(events))
    assert all(utc(event["label_at"]) >= utc(event["timestamp"]) for event in events if event["label"])


def test_the_products_follow_each_other() -> None:
    events = list(simulate(Simulation(events=2000)))
    for part, product in enumerate(PRODUCTS):
        stretch = events[part * 400 + 40 : part * 400 + 360]
        own = sum(_mentions(event["text"], part) for event in stretch)
        assert own > 0.75 * len(stretch), product.name


def test_slang_is_not_used_before_its_time() -> None:
    sayings = {slang.saying.format(it="").strip().lower(): slang.since for slang in SLANG}
    total = 3000
    for index, event in enumerate(simulate(Simulation(events=total))):
        for saying, since in sayings.items():
            assert since <= index / total or saying not in event["text"].lower()


def test_label_noise_is_the_share_that_was_asked_for() -> None:
    clean = list(simulate(Simulation(events=5000, label_noise=0.0, unlabelled=0.0)))
    noisy = list(simulate(Simulation(events=5000, label_noise=1.0, unlabelled=0.0)))
    assert Counter(event["label"] for event in clean).keys() == set(LABELS)
    assert clean[0]["text"] == noisy[0]["text"]
    assert clean[0]["label"] != noisy[0]["label"]
    default = list(simulate(Simulation(events=5000)))
    unlabelled = sum(event["label"] is None for event in default)
    assert 50 < unlabelled < 160


def _mentions(text: str, part: int) -> bool:
    """The text names the product, one of its models, or one of its aspects (slang and swapped letters may hide all)."""
    product = PRODUCTS[part]
    words = [product.name, *product.models, *(aspect.subject for aspect in product.aspects)]
    return any(word.lower() in text.lower() for word in words)
