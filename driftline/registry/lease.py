"""A lease with a fence: at most one holder acts, and one that was wrong about holding it cannot do harm.

The fence is a counter that rises with every new holder; the publish script compares it where the write happens, so a
holder that slept through its lease is refused (LeaseLost) whatever it believes.
"""

import threading
import time
import uuid
from types import TracebackType

import structlog

from driftline.errors import LeaseLost, RegistryError, RegistryUnavailable
from driftline.names import Keys
from driftline.registry.client import Client, run_script
from driftline.registry.fields import damaged

__all__ = ["Lease"]

log = structlog.get_logger()


class Lease:
    """One named lease of a feed: `with registry.lease(…) as lease: if lease.acquire(): …`.

    Delivery: renewed by a thread of its own at a third of `ttl_s`. After an outage it is taken up again under the same
    fence, unless another holder came between. Idempotency: `acquire` and `release` may be called again. Leaving the
    block releases; a killed holder's lease runs out after `ttl_s`. Errors: RegistryUnavailable from `acquire`,
    RegistryError if fence or lease were damaged.
    """

    def __init__(self, client: Client, keys: Keys, feed: str, name: str, ttl_s: float) -> None:
        self.feed = feed
        self.name = name
        self._client = client
        self._keys = [keys.lease(feed, name), keys.fence(feed, name)]
        self._ttl_s = ttl_s
        self._token = uuid.uuid4().hex
        self._fence: int | None = None
        self._held_until = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> bool:
        """Take the lease if it is free (or already ours). False if another holds it. RegistryUnavailable."""
        asked = time.monotonic()
        fence = run_script(self._client, "acquire", self._keys, self._token, self._ttl_ms)
        if fence is None:
            raise damaged(self._keys[1], "is no fence that can rise", f"with no learner running, SET {self._keys[1]} 0")
        if not fence:
            self._held_until = 0.0
            return False
        self._fence = int(fence)
        self._held_until = asked + self._ttl_s
        self._start_renewing()
        return True

    @property
    def fence(self) -> int:
        """The number that the publish script compares. LeaseLost if the lease was never acquired."""
        if self._fence is None:
            raise LeaseLost(
                f"the lease {self.name} of feed {self.feed} was never acquired: another process may hold it"
            )
        return self._fence

    @property
    def held(self) -> bool:
        """Whether the lease is surely ours right now, by this machine's monotonic clock."""
        return time.monotonic() < self._held_until

    def release(self) -> None:
        """Stop renewing and give the lease back. A server that does not answer is left to let it run out."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        held, self._held_until = self._fence is not None, 0.0
        if held:
            try:
                run_script(self._client, "release", self._keys[:1], self._token)
            except RegistryError as error:
                log.warning("lease_not_released", feed=self.feed, lease=self.name, error=str(error))

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def _ttl_ms(self) -> int:
        return int(self._ttl_s * 1000)

    def _start_renewing(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._stop.clear()
            self._thread = threading.Thread(target=self._keep_renewing, name=f"lease-{self.name}", daemon=True)
            self._thread.start()

    def _keep_renewing(self) -> None:
        """Until released. A lost lease is asked for in vain, and renewed again should `acquire` get it back."""
        while not self._stop.wait(self._ttl_s / 3):
            try:
                self._renew()
            except RegistryUnavailable:
                continue
            except RegistryError as error:
                log.error("lease_not_renewed", feed=self.feed, lease=self.name, error=str(error))

    def _renew(self) -> None:
        asked = time.monotonic()
        kept = bool(run_script(self._client, "renew", self._keys, self._token, self._ttl_ms, self.fence))
        if not kept and self._held_until:
            log.warning("lease_lost", feed=self.feed, lease=self.name, fence=self._fence)
        self._held_until = asked + self._ttl_s if kept else 0.0
