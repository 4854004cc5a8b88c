"""What would steer a terminal, written out. Every string from outside passes here on its way to one."""

import re

STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0001]"
)
"""Controls (ESC, CSI, carriage return; not line ends and tabs), characters that turn the reading direction, other line
ends, halves of surrogate pairs, which no stream takes. Joiners stay: emoji are made with them."""


def harmless(text: str) -> str:
    """`text` with what steers a terminal written out, such as `\\x1b`; line ends and tabs stay."""
    return STEERING.sub(_written_out, text)


def one_line(text: str) -> str:
    """As `harmless`, line ends and tabs written out, too: for one value, which must not look like several lines."""
    return harmless(text).replace("\n", "\\n").replace("\t", "\\t")


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
