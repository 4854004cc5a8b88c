"""Cleaning of users' texts: one function, so that ingest, scorer and HTTP answers see the same characters.

Repairs broken encodings and HTML entities (ftfy), strips control characters and halves of surrogate pairs, and
collapses whitespace. Language, case, emoji and punctuation stay, save curly quotes, which ftfy makes straight.
"""

import re
import unicodedata

import ftfy

_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff]")
_WHITESPACE = re.compile(r"\s+")
MAX_LINES = 100


def clean_text(text: str) -> str:
    """`text` as the model sees it; "" if nothing visible is left. Never raises; linear time."""
    if not _plain(text):
        text = ftfy.fix_text(_few_lines(text))
    text = _WHITESPACE.sub(" ", _CONTROLS.sub("", text)).strip()
    return text if any(unicodedata.category(character)[0] not in "CZ" for character in text) else ""


def _plain(text: str) -> bool:
    """Whether ftfy would change nothing that the whitespace and control rules do not change too."""
    return text.isascii() and "&" not in text and "\x1b" not in text


def _few_lines(text: str) -> str:
    """ftfy works line by line at 16 µs each: a text of nothing but line ends must not stop the ingest for a second."""
    return text if text.count("\n") <= MAX_LINES else re.sub(r"[\r\n]+", " ", text)
