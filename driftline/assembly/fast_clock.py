"""Builds the fast clocks out of a config. No torch: what needs the base model comes from who loads it
(`driftline.assembly.base_names`)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from driftline.assembly.base_names import await_names
from driftline.assembly.label_changes import adopt_labels, require_labels
from driftline.assembly.wiring import (
    build_registry,
    build_signer,
    build_trust,
    open_buffer,
    require_one_rank,
)
from driftline.config import Config
from driftline.errors import ConfigError
from driftline.experts.choice import mixture_of
from driftline.label_change import current_name
from driftline.records import ADAPT_ROLE

if TYPE_CHECKING:
    from driftline.buffer import Buffer
    from driftline.registry import Lease, Registry
    from learner.fast.clock import FastClock

LEASE_S = 5.0


def run_fast_clocks(config: Config, stop: threading.Event) -> None:
    """The fast clocks of all feeds that have one, until `stop`. ConfigError as `require_one_rank`, and if none has."""
    from learner.fast.service import FastFeed, FastService

    require_one_rank(config)
    sections = {name: section for name, section in config.feed.items() if section.fast.enabled}
    if not sections:
        raise ConfigError("feed.NAME.fast.enabled is false for every feed: nothing to adapt")
    registry = build_registry(config)
    require_labels(config)
    names = {name: await_names(config, section.labels, stop) for name, section in sections.items()}
    with closing(open_buffer(config)) as buffer:
        adopt_labels(config, buffer)
        feeds = {}
        for name, section in sections.items():
            if (own := names[name]) is None:
                return  # stopped before anything was to do
            lease = registry.lease(name, ADAPT_ROLE, ttl_s=LEASE_S)
            clock = build_fast_clock(name, config, registry, buffer, lease, own, own.feature_size)
            feeds[name] = FastFeed(
                clock=clock,
                lease=lease,
                block_examples=section.fast.block_examples,
                block_s=section.fast.block_s,
                seen_revision=partial(buffer.ledger.seen_revision, name),
            )
        FastService(feeds, registry).run(stop)


def build_fast_clock(
    feed: str,
    config: Config,
    registry: Registry,
    buffer: Buffer,
    lease: Lease,
    names: Callable[[], NDArray[np.float32]],
    feature_size: int,
) -> FastClock:
    """One feed's fast clock, not opened. `names`: gives the features (C, d) of the label names by the base."""
    from learner.fast.clock import FastClock, FastShop
    from learner.fast.heads import Heads
    from learner.fast.versions import FastVersions

    section, trust = config.feed[feed], build_trust(config)
    versions = FastVersions(feed, section.labels, registry, trust, names)
    shop = FastShop(
        books=buffer.fast,
        registry=registry,
        heads=Heads(versions.head),
        names=versions.names,
        fast_state=versions.fast_state,
        current_name=partial(current_name, terms=section),
        mixture=mixture_of(section.fast),
        signer=build_signer(config, trust),
        trust=trust,
        lease=lease,
        feature_size=feature_size,
    )
    return FastClock(feed, section.labels, section.fast, shop)
