"""The texts of the shipped tones: enough of them, all of one length, and about nothing but a feeling."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from emoprobe.config.files import parse_config
from emoprobe.config.reading import read_config_values

CONFIG = Path(__file__).parents[3] / "config"
VARIANTS = parse_config(read_config_values(CONFIG / "tones.yaml")).variants
TEXTS = {name: variant.paraphrases for name, variant in VARIANTS.items() if name != "control"}
EVERY = [(name, text) for name, texts in TEXTS.items() for text in texts]

LEAST, TOKENS, TOLERANCE = 8, 24, 1

# Words of an instruction on how to work, of the task itself, or that belong into a sum.
INSTRUCTIONS = """step steps slow slowly slower careful carefully check checks checking double-check quick quickly
    hurry fast faster rush rushing speed think reason focus concentrate attention effort try explain show must should please
    accurate accurately accuracy precise precisely exact exactly"""
TASK = """answer answers question questions problem problems task tasks result results solution solve solved calculate
    compute number numbers math maths arithmetic exercise correct correctly wrong right mistake mistakes error errors"""
NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred thousand
    million first second third fourth fifth half quarter double triple single pair dozen couple once twice both times
    plus minus sum add added subtract multiply divide count counted equal equals"""
BANNED = {*INSTRUCTIONS.split(), *TASK.split(), *NUMBERS.split()}


def words(text: str) -> list[str]:
    """The words of a text in lower case, hyphens and apostrophes inside them kept."""
    return re.findall(r"[a-z]+(?:[-'’][a-z]+)*", text.lower())


def test_four_tones_stand_on_either_side_of_a_neutral_filler() -> None:
    valences = Counter(variant.valence for variant in VARIANTS.values())
    assert valences == {None: 1, "neutral": 1, "negative": 4, "positive": 4}
    assert VARIANTS["control"].paraphrases == []
    assert VARIANTS["filler"].valence == "neutral"
    assert len({variant.placement for variant in VARIANTS.values()}) == 1


@pytest.mark.parametrize("name", TEXTS)
def test_a_tone_has_enough_texts(name: str) -> None:
    assert len(TEXTS[name]) >= LEAST
    # As many in each, so that text 3 of a tone meets the same questions as text 3 of the filler.
    assert len(TEXTS[name]) == len(TEXTS["filler"])


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_matched_in_tokens(name: str, smollm2: Path) -> None:
    tokenizer = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    lengths = {text: len(tokenizer.encode(text, add_special_tokens=False).ids) for text in TEXTS[name]}
    assert {text: n for text, n in lengths.items() if abs(n - TOKENS) > TOLERANCE} == {}


@pytest.mark.parametrize(("name", "text"), EVERY)
def test_a_text_holds_no_instruction_no_number_and_no_word_of_the_task(name: str, text: str) -> None:
    assert not BANNED & set(words(text))
    assert re.search(r"[\d:?{}<>]", text) is None
    assert text == text.strip()
    assert text[0].isupper()
    assert text[-1] in ".!"


def test_no_two_texts_are_alike_or_begin_alike() -> None:
    assert len({tuple(words(text)) for _, text in EVERY}) == len(EVERY)
    beginnings = Counter(tuple(words(text)[:2]) for _, text in EVERY)
    assert [beginning for beginning, count in beginnings.items() if count > 1] == []


def test_no_two_texts_share_a_clause() -> None:
    clauses = Counter(tuple(words(text)[at : at + 6]) for _, text in EVERY for at in range(len(words(text)) - 5))
    assert [clause for clause, count in clauses.items() if count > 1] == []
