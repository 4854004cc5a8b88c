"""Does the base read the feed's words, or only their letters? Pure; needs a fast tokenizer, and no torch.

A base that was trained on other languages splits their words into unknown tokens and single characters: what it makes
of them says little, and a head on it learns little more than which class is frequent. Measured with all-MiniLM-L6-v2
(docs/lab-notes.md): at most 4 % of the words of tweets, reviews and abstracts in Latin script are broken, 22 % in
Greek, 42 % in Ukrainian, 70 to 98 % in Russian, Chinese, Japanese, Korean and Thai.

Covered: letters. Not covered: numbers, emoji, words of one letter, and whether the model knows what it can read.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

MANY_BROKEN = 0.3
"""From here on it is told."""
SAMPLE_TEXTS = 200

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff"  # Thai, Lao, Burmese, Khmer, kana
_WORD = re.compile(rf"(?P<han>[{_HAN}])|(?P<unspaced>[{_UNSPACED}])|[^\W\d_{_HAN}{_UNSPACED}]{{2,}}")


def broken_words(encoder: "Tokenizer", unknown: int | None, texts: Sequence[str]) -> float | None:
    """The share of the texts' words that are unknown to the tokenizer or split into single characters, 0..1; None
    without any word.

    In scripts without spaces each character counts for a word: broken if its piece covers nothing else. A Han character
    may well be a piece of its own, since it is as much as a word: broken if it is unknown or split further.
    `unknown`: the id of the unknown token, if there is one. What is cut off as too long does not count.
    """
    found = [broken for text in texts for broken in _words(encoder.encode(text), unknown, text)]
    return sum(found) / len(found) if found else None


def splitting_in_words(share: float | None) -> str:
    """What is wrong and what to do; nothing below `MANY_BROKEN`."""
    if share is None or share < MANY_BROKEN:
        return ""
    return (
        f"the base model sees {100 * share:.0f} % of the words as unknown or letter by letter, so it can learn "
        "little from them: set base.model to one that was trained on the feed's languages, such as a multilingual one"
    )


def _words(encoding: "Encoding", unknown: int | None, text: str) -> Iterator[bool]:
    """Whether each word is broken, in order."""
    pieces = [
        (start, end, number == unknown)
        for number, (start, end), special in zip(
            encoding.ids, encoding.offsets, encoding.special_tokens_mask, strict=True
        )
        if end > start and not (special and number != unknown)
    ]
    read_up_to = pieces[-1][1] if pieces else 0
    place = 0
    for word in _WORD.finditer(text, 0, read_up_to):
        while place < len(pieces) and pieces[place][1] <= word.start():
            place += 1
        own = []
        for piece in pieces[place:]:
            if piece[0] >= word.end():
                break
            own.append(piece)
        yield _is_broken(word, own)


def _is_broken(word: re.Match[str], own: Sequence[tuple[int, int, bool]]) -> bool:
    if any(is_unknown for *_, is_unknown in own):
        return True
    if word.lastgroup == "han":
        return len(own) > 1
    if word.lastgroup == "unspaced":
        return all(end - start <= 1 for start, end, _ in own)
    return len(own) >= word.end() - word.start()
