"""A simulated product-review feed with everything that makes real ones hard: five products in turn, sayings that mean
one thing for one product and the opposite for the next, slang that comes up on the way, noisy, late and missing labels.

Pure and seeded: the same arguments give the same events. The shape is that of an events file (DESIGN §6).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from driftline.records import iso
from replay.lexicon import CLOSERS, OPENERS, PRODUCTS, SLANG, VERDICTS, Aspect, Product

LABELS = ("negative", "neutral", "positive")
LABEL_WEIGHTS = (0.36, 0.22, 0.42)
SOURCES = ("shop", "app", "forum", "social")
START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """How hard the feed is. Shares are in 0..1, times in seconds."""

    events: int = 4000
    seed: int = 0
    interval_s: float = 10.0
    label_noise: float = 0.04
    unlabelled: float = 0.02
    label_delay_s: float = 120.0
    look_back: float = 0.08
    slang: float = 0.3
    slang_alone: float = 0.12


def simulate(settings: Simulation | None = None) -> Iterator[dict[str, Any]]:
    """Events in time order: id, text, label (None: never labelled), timestamp, source, and label_at where labelled.

    About `interval_s` lies between two events; labels come after an exponential delay of mean `label_delay_s`.
    """
    settings = settings or Simulation()
    random = Random(settings.seed)
    moment = START
    for index in range(settings.events):
        moment += timedelta(seconds=round(settings.interval_s * random.uniform(0.2, 1.8), 3))
        yield _event(index, moment, settings, random)


def _event(index: int, moment: datetime, settings: Simulation, random: Random) -> dict[str, Any]:
    progress = index / settings.events
    truth = random.choices(LABELS, LABEL_WEIGHTS)[0]
    event: dict[str, Any] = {
        "id": f"r-{index:05d}",
        "text": _text(truth, progress, settings, random),
        "label": None,
        "timestamp": iso(moment),
        "source": random.choice(SOURCES),
    }
    if random.random() >= settings.unlabelled:
        delay_s = min(random.expovariate(1 / settings.label_delay_s), 20 * settings.label_delay_s)
        event["label"] = _noisy(truth, settings.label_noise, random)
        event["label_at"] = iso(moment + timedelta(seconds=round(delay_s, 3)))
    return event


def _noisy(truth: str, noise: float, random: Random) -> str:
    if random.random() >= noise:
        return truth
    return random.choice([label for label in LABELS if label != truth])


def _text(label: str, progress: float, settings: Simulation, random: Random) -> str:
    product = _product(progress, settings.look_back, random)
    model = random.choice(product.models)
    it = random.choice((model, f"this {product.name}", f"the {model}"))
    if random.random() < settings.slang_alone:
        body = _sentence(_slang(label, progress, it, random))
    else:
        body = _sentence(_BODIES[label](product.aspects, random, model))
        if random.random() < settings.slang:
            body += " " + _sentence(_slang(label, progress, it, random))
    return _worn(_framed(body, label, random), random)


def _product(progress: float, look_back: float, random: Random) -> Product:
    """The product of the day; around a change both; now and then one that was sold before."""
    place = progress * len(PRODUCTS) + random.uniform(-0.05, 0.05)
    current = min(max(int(place), 0), len(PRODUCTS) - 1)
    if current and random.random() < look_back:
        current = random.randrange(current)
    return PRODUCTS[current]


def _positive(aspects: tuple[Aspect, ...], random: Random, model: str) -> str:
    first, second = random.sample(aspects, 2)
    if random.random() < 0.3:
        return f"{_blame(first, random)}, but {_praise(second, random)}, {random.choice(VERDICTS['positive'])}"
    return _one_or_two(_praise(first, random), _praise(second, random), model, random)


def _negative(aspects: tuple[Aspect, ...], random: Random, model: str) -> str:
    first, second = random.sample(aspects, 2)
    if random.random() < 0.3:
        return f"{_praise(first, random)}, but {_blame(second, random)}, {random.choice(VERDICTS['negative'])}"
    return _one_or_two(_blame(first, random), _blame(second, random), model, random)


def _neutral(aspects: tuple[Aspect, ...], random: Random, model: str) -> str:
    first, second = random.sample(aspects, 2)
    if random.random() < 0.3:
        return f"{_praise(first, random)}, {_blame(second, random)}, {random.choice(VERDICTS['neutral'])}"
    return _one_or_two(_fact(first, random), _fact(second, random), model, random)


_BODIES = {"positive": _positive, "negative": _negative, "neutral": _neutral}


def _one_or_two(first: str, second: str, model: str, random: Random) -> str:
    shapes = (first, f"{first} and {second}", f"{first}. {_upper(second)}", f"on the {model} {first}, {second}")
    return random.choice(shapes)


def _praise(aspect: Aspect, random: Random) -> str:
    return f"{aspect.subject} {random.choice(aspect.praise)}"


def _blame(aspect: Aspect, random: Random) -> str:
    return f"{aspect.subject} {random.choice(aspect.blame)}"


def _fact(aspect: Aspect, random: Random) -> str:
    return f"{aspect.subject} {random.choice(aspect.fact)}"


def _slang(label: str, progress: float, it: str, random: Random) -> str:
    """A saying that is in use by now; new ones are used more than old ones."""
    known = [slang for slang in SLANG if slang.label == label and slang.since <= progress]
    weights = [1.0 + 4.0 * slang.since for slang in known]
    return random.choices(known, weights)[0].saying.format(it=it)


def _framed(body: str, label: str, random: Random) -> str:
    opener = random.choice(OPENERS[label]) + " " if random.random() < 0.25 else ""
    closer = " " + random.choice(CLOSERS[label]) if random.random() < 0.25 else ""
    return opener + body + closer


def _worn(text: str, random: Random) -> str:
    """What typing on a phone does to a text: no capitals, no full stop, two letters swapped."""
    if random.random() < 0.25:
        text = text.lower()
    if random.random() < 0.2:
        text = text.rstrip(".")
    if random.random() < 0.1 and len(text) > 12:
        at = random.randrange(4, len(text) - 4)
        text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text


def _sentence(text: str) -> str:
    return _upper(text) + "."


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
