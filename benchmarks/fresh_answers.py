"""Answers computed anew from what they name: version, pulse and text. PEFT, one text at a time; nothing of serving's.

Features travel as fp16 numbers, in answers as in what is learned, so a number that lies next to the middle between two
of them is rounded up here and down there, by the last bit of fp32. Where that happened the answer is compared with what
the other rounding gives, and counted: see `Compared.rounded`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.probes import Probe
from benchmarks.pulse_log import PulseLog
from driftline.artefact.parts import BODY, HEAD, NAMES
from driftline.artefact.weights import Weights, unpack
from driftline.assembly.wiring import build_registry, build_trust
from driftline.base import find_model, load_base
from driftline.config import Config
from driftline.experts import Arrays, Block, Partial, probabilities
from driftline.experts.choice import mixture_of, spoken
from driftline.experts.head import log_probabilities
from driftline.records import Manifest
from driftline.topics.text import clean_text
from tests.fixtures.versions import peft_features

TOLERANCE = 1e-5
NEAR = 2e-6
"""A feature's number (of about 1) so near to the middle between two fp16 numbers may be rounded either way."""
MOST_WAYS = 3
"""So many numbers at most are tried the other way at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version's weights, and the manifest that names them; both None of version 0."""

    manifest: Manifest | None
    weights: Weights | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One answer against the fresh one. `off`: the largest difference of a score; `rounded`: how many numbers of the
    feature had to be rounded the other way for it, and `straight` the difference with none; `told`: as `off`, of what
    its own experts and weights add up to."""

    version: int
    pulse: int
    off: float
    rounded: int
    straight: float
    told: float
    same_label: bool


class FreshAnswers:
    """Of one feed's versions as the registry has them."""

    def __init__(self, config: Config, feed: str) -> None:
        self._config, self._feed = config, feed
        self._section = config.feed[feed]
        self._labels = self._section.labels
        self._mixture = mixture_of(self._section.fast)
        self._base = load_base(config.base)
        self._base_names = self._base.features(spoken(self._labels)).numpy()  # (C, d)
        registry, trust = build_registry(config), build_trust(config)
        self._registry, self._trust = registry, trust
        self._versions: dict[int, Version] = {0: Version(manifest=None, weights=None)}

    def compare(self, probes: Sequence[Probe], log: PulseLog) -> list[Compared]:
        """All that can be: a pulse that the log has no state of is left out (and so the list is shorter)."""
        wanted: dict[int, list[Probe]] = {}
        for probe in probes:
            wanted.setdefault(probe.pulse, []).append(probe)
        features = self._features(probes)
        found = []
        for state, arrays in log.states(tuple(self._mixture.experts)):
            for probe in wanted.pop(state.number, []):
                row = features[int((probe.answer or {})["adapter_version"]), probe.text]
                found.append(self._compared(probe, row, arrays, fell_back=state.fell_back))
        return found

    def _features(self, probes: Iterable[Probe]) -> dict[tuple[int, str], torch.Tensor]:
        """(d,) fp32 by version and text."""
        texts: dict[int, dict[str, str]] = {}
        for probe in probes:
            version = int((probe.answer or {})["adapter_version"])
            texts.setdefault(version, {})[probe.text] = clean_text(probe.text)
        rows = {version: self._seen_by(version, list(own.values())) for version, own in texts.items()}
        return {
            (version, text): row for version, own in texts.items() for text, row in zip(own, rows[version], strict=True)
        }

    def _seen_by(self, version: int, texts: Sequence[str]) -> torch.Tensor:
        """(N, d) fp32."""
        weights, manifest = self._version(version).weights, self._version(version).manifest
        if weights is None or manifest is None:
            return torch.cat([self._base.features([text]) for text in texts])
        folder: Any = find_model(self._config.base.model)
        return peft_features(folder, weights, texts, alpha=manifest.alpha, max_tokens=self._base.max_tokens)

    def _version(self, number: int) -> Version:
        if number not in self._versions:
            manifest = self._trust.verify(self._registry.manifest(self._feed, number))
            body, head = (self._registry.get_part(manifest, part) for part in (BODY, HEAD))
            names = self._registry.get_part(manifest, NAMES) if NAMES in manifest.parts else None
            self._versions[number] = Version(manifest=manifest, weights=unpack(body, head, names))
        return self._versions[number]

    def _compared(self, probe: Probe, row: torch.Tensor, arrays: Mapping[str, Arrays], *, fell_back: bool) -> Compared:
        answer = probe.answer or {}
        version = int(answer["adapter_version"])
        served = np.array([answer["scores"][label] for label in self._labels])  # (C,)
        off, rounded, straight, fresh = np.inf, 0, np.inf, served
        for count, half in _roundings(row.numpy()):
            scores = self._scores(version, probe.text, row, half, None if fell_back and version else arrays)
            now = float(np.abs(scores - served).max())
            straight = straight if count else now
            if now < off:
                off, rounded, fresh = now, count, scores
            if off <= TOLERANCE:
                break
        return Compared(
            version=version,
            pulse=probe.pulse,
            off=off,
            rounded=rounded,
            straight=straight,
            told=float(np.abs(_told(answer, self._labels) - served).max()),
            same_label=self._labels[int(fresh.argmax())] == answer["label"],
        )

    def _scores(
        self,
        version: int,
        text: str,
        row: torch.Tensor,
        half: NDArray[np.float16],
        arrays: Mapping[str, Arrays] | None,
    ) -> NDArray[np.float64]:
        """(C,) of a text with feature (d,) in both widths; `arrays` None: by the version's head alone."""
        known = self._version(version)
        head, names = Partial.none(1, len(self._labels)), self._base_names
        if known.weights is not None and known.manifest is not None:
            logits = functional.linear(row[None], known.weights.head_weight, known.weights.head_bias)  # (1, R)
            head = Partial.full(log_probabilities(logits.numpy(), known.manifest.labels, self._labels))
            names = known.weights.names.float().numpy() if known.weights.names is not None else None
        if arrays is None:
            return np.exp(head.values[0])
        features = Partial.full(half[None])  # (1, d)
        block = Block(texts=(clean_text(text),), features=features, head=head, names=names)
        return probabilities(self._mixture.score(arrays, block).logits)[0]


def _roundings(row: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float16]]]:
    """The fp16 numbers of a feature, then each other way that the last bits of fp32 leave open; with how many numbers
    were rounded the other way."""
    half = row.astype(np.float16)
    yield 0, half
    towards = np.where(row > half.astype(np.float32), np.float16(np.inf), np.float16(-np.inf)).astype(np.float16)
    other = np.nextafter(half, towards)
    middle = (half.astype(np.float64) + other.astype(np.float64)) / 2
    [near] = np.nonzero(np.abs(row - middle) <= NEAR)
    for count in range(1, MOST_WAYS + 1):
        for places in combinations(near.tolist(), count):
            turned = half.copy()
            turned[list(places)] = other[list(places)]
            yield count, turned


def _told(answer: Mapping[str, Any], labels: Sequence[str]) -> NDArray[np.float64]:
    """(C,): what the answer says it was mixed from, added up; its own scores where it was not mixed."""
    if not answer["experts"]:
        return np.array([answer["scores"][label] for label in labels])
    logits = np.array(
        [
            answer["bias"][label]
            + sum(one["weight"][label] * one["scores"][label] for one in answer["experts"].values())
            for label in labels
        ]
    )
    raised = np.exp(logits - logits.max())
    found: NDArray[np.float64] = raised / raised.sum()
    return found
