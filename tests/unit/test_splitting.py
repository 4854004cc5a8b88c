"""Words that a base cannot read, by a tokenizer made by hand and by a real one."""

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel

from driftline.splitting import broken_words, splitting_in_words

LETTERS = {c: 10 + i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz")}
PIECES = {"[UNK]": 0, "good": 1, "game": 2, "##s": 3, "好": 4, "п": 5, "##р": 6, "##и": 7, "の": 8}


def word_pieces(max_tokens: int = 64) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(PIECES, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("Good games!", 0.0),
        ("good при", 0.5),  # letter by letter
        ("good шум game good", 0.25),  # unknown
        ("好好", 0.0),  # a Han character may be a piece of its own
        ("好坏", 0.5),
        ("のの", 1.0),  # a kana is not a word
        ("a 7 🙂 !!", None),
        ("", None),
    ],
)
def test_words_by_hand(text: str, share: float | None) -> None:
    assert broken_words(word_pieces(), 0, [text]) == share


def test_the_words_of_all_texts_count_alike() -> None:
    assert broken_words(word_pieces(), 0, ["good good good", "при"]) == 0.25


def test_what_is_cut_off_does_not_count() -> None:
    assert broken_words(word_pieces(max_tokens=2), 0, ["good game при при при"]) == 0.0


def test_bytes_are_less_than_characters() -> None:
    tokenizer = Tokenizer(BPE({piece: i for i, piece in enumerate(sorted(ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    assert broken_words(tokenizer, None, ["好坏 при"]) == 1.0


def test_it_is_told_with_the_remedy_only_where_many_are_broken() -> None:
    assert splitting_in_words(0.04) == ""
    assert splitting_in_words(None) == ""
    assert splitting_in_words(0.72).startswith("the base model sees 72 % of the words")
    assert "base.model" in splitting_in_words(0.72)
