"""A running `driftline up`, and light looks at it from outside: its children, the buffer's counters, the audit."""

from contextlib import closing
from typing import Any

from benchmarks.installation import FEED, Installation, Started
from driftline.assembly.supervisor import supervised
from driftline.assembly.wiring import open_buffer
from driftline.buffer import FeedCounts
from driftline.clock import Deadline
from driftline.config import Config
from driftline.errors import RegistryUnavailable
from driftline.names import Keys, StateFiles
from driftline.registry import Registry, connect


class Up:
    """Starts `up` on the installation, which ends it."""

    def __init__(self, place: Installation) -> None:
        self.place = place
        self.started: Started = place.start("up", "up")
        self._config = place.config
        self._files = StateFiles(self._config.state.path)

    def children(self) -> dict[str, dict[str, Any]]:
        """The child processes by verb; {} before they run."""
        return supervised(self._files.supervisor)

    def pid(self, verb: str) -> int | None:
        """The process id of a child, None while it does not run."""
        return self.children().get(verb, {}).get("pid")

    def restarts(self) -> dict[str, int]:
        """How often each child was started again."""
        return {verb: found["restarts"] for verb, found in self.children().items()}

    def counts(self) -> FeedCounts:
        """The feed's counters; all 0 before ingest ran."""
        if not self._files.buffer.exists():
            return FeedCounts()
        with closing(open_buffer(self._config, read_only=True)) as buffer:
            return buffer.counts(FEED)

    def promoted(self) -> int:
        """How many versions the learner has promoted; 0 while Redis does not answer."""
        return promoted_versions(self._config)

    def learns_all(self, examples: int, min_examples: int, within_s: float) -> bool:
        """Whether every example came, and too few are left for another update, within the time."""
        deadline = Deadline(within_s)
        self.place.require(
            self.started, lambda: self._learned(examples, min_examples) or deadline.expired(), within_s + 10
        )
        return self._learned(examples, min_examples)

    def _learned(self, examples: int, min_examples: int) -> bool:
        counts = self.counts()
        waiting = counts.awaiting_prediction + counts.taken + counts.fresh
        return counts.examples >= examples and waiting < min_examples


def promoted_versions(config: Config) -> int:
    """Promotions in the audit, each look over a connection of its own, so that an outage leaves no broken one."""
    with closing(connect(config.redis.url, config.redis.prefix)) as client:
        try:
            audit = Registry(client, Keys(config.redis.prefix)).audit(FEED)
        except RegistryUnavailable:
            return 0
    return sum(entry.action == "promoted" for entry in audit)
