"""Hashing whole batches equals a plain loop over each text's n-grams, in Python's own integers."""

import re
from collections.abc import Callable, Iterator, Sequence

import pytest

from driftline.experts.hashing import MAX_CHARACTERS, Characters, Grams, character_grams, characters, word_grams

K, S, MASK = 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93, 2**64 - 1
TEXTS = [
    "",
    "a",
    "Don't stop!! it's 4_ever",
    " blanks   between\tand behind  ",
    "hyphen-ated, 50% (off) <b>",
    "我喜欢这个游戏。真好 ok",
    "とても楽しいゲームです",
    "Ça va? ΣΊΣΥΦΟΣ, İstanbul",
    "게임이 재미있어요",
    "😀😀👍🏽 nice 👨‍👩‍👧",
    "\ud800 half a pair \x00 and NUL",
    "\n \n",
    "word " * 50,
]
Reading = Callable[[Characters], Grams]


def mixed(value: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = ((value ^ (value >> 33)) * factor) & MASK
    return value ^ (value >> 33)


def polynomial(characters: str) -> int:
    return sum(pow(K, place, 2**64) * ord(one) for place, one in enumerate(characters)) & MASK


def loop_over_characters(text: str) -> Iterator[int]:
    padded = f" {text[:MAX_CHARACTERS].lower()} "
    for start in range(len(padded)):
        for size in (3, 4, 5):
            if start + size <= len(padded):
                yield mixed(polynomial(padded[start : start + size]))


def loop_over_words(words: list[str]) -> Iterator[int]:
    for place, word in enumerate(words):
        yield mixed(polynomial(word))
        if place:
            yield mixed((polynomial(words[place - 1]) + S * polynomial(word)) & MASK)


def of_each(reading: Reading, texts: Sequence[str]) -> list[list[int]]:
    """Each text's hashes, sorted."""
    grams = reading(characters(texts))
    return [sorted(map(int, grams.hashes[grams.owners == place])) for place in range(len(texts))]


def test_characters_equal_the_loop() -> None:
    assert of_each(character_grams, TEXTS) == [sorted(loop_over_characters(text)) for text in TEXTS]


@pytest.mark.parametrize("text", [text for text in TEXTS if text.isascii() and "\x00" not in text])
def test_words_equal_the_loop(text: str) -> None:
    words = re.findall(r"[\w']+|[^\w\s]", text.lower())
    assert of_each(word_grams, [text]) == [sorted(loop_over_words(words))]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我喜欢 this游戏。", ["我", "喜", "欢", "this", "游", "戏", "。"]),
        ("게임이 재미있어요", ["게임이", "재미있어요"]),
        ("Ça va?ΣΊΣΥΦΟΣ", ["ça", "va", "?", "σίσυφος"]),
        ("ok😀😀👍🏽", ["ok", "😀", "😀", "👍", "🏽"]),
        ("wide　blank\u2028line", ["wide", "blank", "line"]),
        ("สนุก", list("สนุก")),
        ("“quoted” — text…", ["“", "quoted", "”", "—", "text", "…"]),
        ("naïve ²½ º×", ["naïve", "²", "½", "º", "×"]),
    ],
)
def test_words_of_other_scripts(text: str, words: list[str]) -> None:
    assert of_each(word_grams, [text]) == [sorted(loop_over_words(words))]


@pytest.mark.parametrize("reading", [character_grams, word_grams])
def test_a_text_hashes_alone_as_in_a_batch(reading: Reading) -> None:
    assert of_each(reading, TEXTS) == [of_each(reading, [text])[0] for text in TEXTS]


@pytest.mark.parametrize("reading", [character_grams, word_grams])
def test_what_stands_behind_the_limit_is_not_read(reading: Reading) -> None:
    text = "ab cd " * (MAX_CHARACTERS // 6 + 1)
    assert of_each(reading, [text + "never read"]) == of_each(reading, [text[:MAX_CHARACTERS]])


@pytest.mark.parametrize("reading", [character_grams, word_grams])
@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_no_text_at_all(reading: Reading, texts: list[str]) -> None:
    grams = reading(characters(texts))
    assert (grams.hashes.shape, grams.owners.shape) == ((0,), (0,))


def test_hashes_are_these_for_ever() -> None:
    """What a feed has learned is kept by them: another value here would make it forget all its n-grams."""
    assert set(map(hex, of_each(word_grams, ["no 😀"])[0])) == {
        "0x56b55dc23a6a52b5",
        "0x37d5d4f1171748ce",
        "0x67ca7ffd14467d1a",
    }
    assert set(map(hex, of_each(character_grams, ["ni"])[0])) == {
        "0x7f1011876f68c905",
        "0x1c22600a8d9d4780",
        "0x8e56d6dde98424bd",
    }
