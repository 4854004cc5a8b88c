"""What browser tests share with those of versions: a tiny base, a key, a trainer."""

from tests.integration.conftest import base, signer, trainer

__all__ = ["base", "signer", "trainer"]
