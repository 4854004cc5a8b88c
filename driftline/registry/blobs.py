"""Blobs: bytes under their sha256, in chunks of 1 MiB so that no client is stalled by a big one (FINDINGS §3).

Delivery: `put` returns when all of it is stored. Atomicity: a blob counts as there once all chunks are; half of one is
invisible and is collected later. Idempotency: content-addressed, and `put` writes every chunk again, which also mends a
damaged blob. Errors: RegistryUnavailable (put again), ArtefactError(missing_blob, hash_mismatch) at `get`.
"""

import hashlib
from collections.abc import Collection
from typing import Any

from driftline.errors import ArtefactError
from driftline.names import BLOB_CHUNK_BYTES, Keys
from driftline.registry.client import Client, run_script

__all__ = ["Blobs"]


class Blobs:
    """The blobs of all feeds. Nothing is shared between feeds."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client: Any = client  # redis-py types replies as unions over every decoding mode
        self._keys = keys

    def put(self, feed: str, data: bytes) -> str:
        """Store `data`; returns its sha256 (hex). It is kept for the collector's grace even if no manifest names it."""
        sha256 = hashlib.sha256(data).hexdigest()
        keys = [self._keys.blob(feed, sha256), self._keys.blobs(feed)]
        chunks = range(0, len(data), BLOB_CHUNK_BYTES)
        for number, start in enumerate(chunks):
            run_script(self._client, "put_chunk", keys, sha256, number, data[start : start + BLOB_CHUNK_BYTES])
        run_script(self._client, "put_chunk", keys, sha256, "bytes", len(data), "chunks", len(chunks))
        return sha256

    def get(self, feed: str, sha256: str) -> bytes:
        """The bytes, hash verified. ArtefactError: missing_blob (or a chunk of it), hash_mismatch."""
        key = self._keys.blob(feed, sha256)
        count = self._client.hget(key, "chunks")
        if count is None:
            raise _missing(feed, sha256)
        data = b"".join(self._chunk(feed, sha256, number) for number in range(int(count)))
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ArtefactError("hash_mismatch", f"blob {sha256[:12]} of feed {feed}: its bytes do not fit its hash")
        return data

    def _chunk(self, feed: str, sha256: str, number: int) -> bytes:
        chunk = self._client.hget(self._keys.blob(feed, sha256), str(number))
        if chunk is None:
            raise _missing(feed, sha256)
        return bytes(chunk)

    def names(self, feed: str) -> list[str]:
        """The sha256 of every blob, whole or in the making."""
        return [name.decode() for name in self._client.zrange(self._keys.blobs(feed), 0, -1)]

    def collect(self, feed: str, keep: Collection[str], grace_s: float) -> int:
        """Remove what is not in `keep` and was not touched for `grace_s`; returns how many blobs.

        Publishing and switching touch their blobs in the same script that names them, so a blob that came into use
        while the caller worked out `keep` is safe.
        """
        doomed = [name for name in self.names(feed) if name not in keep]
        keys = [self._keys.blobs(feed), *(self._keys.blob(feed, name) for name in doomed)]
        return int(run_script(self._client, "collect", keys, int(grace_s * 1000), *doomed)) if doomed else 0

    def drop(self, feed: str, sha256: str) -> None:
        """Remove one that nothing names any more, without waiting for the collector."""
        run_script(self._client, "collect", [self._keys.blobs(feed), self._keys.blob(feed, sha256)], 0, sha256)


def _missing(feed: str, sha256: str) -> ArtefactError:
    return ArtefactError("missing_blob", f"blob {sha256[:12]} of feed {feed} is not (wholly) in the registry")
