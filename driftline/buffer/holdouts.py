"""Which texts are held out (DESIGN §4): a keyed hash of the normalised text, so that reposts fall on one side.

Keeps invariant 10's half that belongs here: the side is decided by the text and a secret key alone, before any label
is known, so nobody can aim at a side and no later step can move a text to the other one.
"""

import hmac
import unicodedata

_HASH_BITS = 63


class HoldoutSplit:
    """Decides by HMAC-SHA256(key, normalised text). Pure; safe in several threads."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def hash(self, text: str) -> int:
        """A number in 0..2^63-1, equal for texts that differ only in case, width forms or white space."""
        digest = hmac.digest(self._key, normalise(text).encode("utf-8", "surrogatepass"), "sha256")
        return int.from_bytes(digest[:8], "big") >> 1

    def held_out(self, text: str, share: float) -> int | None:
        """The hash if the text is held out at this share (0..1), else None."""
        hashed = self.hash(text)
        return hashed if hashed < share * (1 << _HASH_BITS) else None


def normalise(text: str) -> str:
    """NFKC, case folded, runs of white space as one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
