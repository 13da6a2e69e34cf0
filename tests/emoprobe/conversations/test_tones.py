"""The texts of the shipped tones: enough of them, all of one length, about a feeling alone; and what checks them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from emoprobe.config.science.prompt import Variant
from emoprobe.conversations.tones import LEAST, alpha, faults, rating_faults
from scripts.check_texts import RatingError, combined, identifier, main, read_ratings, sheet, tones_of

CONFIG = Path(__file__).parents[3] / "config"
TONES = tones_of([CONFIG / "tones.yaml"])
FILES = [CONFIG / "tones.yaml", *sorted((CONFIG / "tones").glob("*.yaml"))]  # those that it does not include, too
EVERY = tones_of(FILES)


@pytest.fixture(scope="module")
def tokens(smollm2: Path) -> Callable[[str], int]:
    tokenizer = Tokenizer.from_file(str(smollm2 / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def altered(name: str, texts: dict[int, str] | None = None, *, keep: int | None = None) -> dict[str, Variant]:
    """The shipped tones with other texts of one at some places, or only the first of it."""
    several = [(texts or {}).get(at, text) for at, text in enumerate(TONES[name].paraphrases)][:keep]
    return {**TONES, name: TONES[name].model_copy(update={"texts": several})}


def test_four_tones_stand_on_either_side_of_a_neutral_filler() -> None:
    assert Counter(tone.valence for tone in TONES.values()) == {"neutral": 1, "negative": 4, "positive": 4}
    assert TONES["filler"].valence == "neutral"
    assert len({variant.placement for variant in EVERY.values()}) == 1


def test_with_the_tones_that_are_not_included_each_valence_has_three_of_either_arousal() -> None:
    labels = Counter((tone.valence, tone.arousal) for tone in EVERY.values())
    assert labels.pop(("neutral", None)) == 1
    assert set(labels.values()) == {3}
    assert len(labels) == 4


@pytest.mark.parametrize("tones", [TONES, EVERY], ids=["included", "all"])
def test_the_shipped_texts_have_no_fault(tones: dict[str, Variant], tokens: Callable[[str], int]) -> None:
    assert list(faults(tones, tokens)) == []


JOY = TONES["joy"].paraphrases


@pytest.mark.parametrize(
    ("tones", "words"),
    [
        (altered("joy", {3: JOY[7]}), ["near-duplicates", JOY[7]]),
        (altered("joy", {3: JOY[7].lower().replace(",", "")}), ["near-duplicates", JOY[7]]),
        (altered("anxiety", {3: f"Oh my, {JOY[7][:60]}"}), ["near-duplicates", JOY[7]]),
        (altered("joy", {3: " ".join([*JOY[7].split()[:2], "it is lovely."])}), ["2 texts begin with"]),
        (altered("joy", {at: f"{JOY[at]} How glad we are." for at in range(4)}), ["joy: 4 texts contain 'how glad we"]),
        (altered("joy", keep=63), ["joy: 63 texts", f"at least {LEAST}"]),
        (altered("filler", {LEAST - 1: "A cup."}), ["filler: 3 tokens instead of 23 to 25: A cup."]),
        (altered("joy", {0: f"{JOY[0][:-1]}, and I am glad."}), ["joy: ", " tokens instead of 23 to 25"]),
        (altered("joy", {0: JOY[0].replace("dance", "think")}), ["words of an instruction, task or number (think)"]),
        (altered("joy", {0: JOY[0].replace("dance", "Hurry")}), ["(hurry)"]),
        (altered("joy", {0: JOY[0].replace("day!", "day?")}), ["question mark"]),
        (altered("joy", {0: JOY[0].replace("Happy", "happy")}), ["does not begin with a capital"]),
        (altered("joy", {0: JOY[0].rstrip(".")}), ["end with a full stop"]),
        (
            {**TONES, "joy": TONES["joy"].model_copy(update={"texts": [text.replace(",", "") for text in JOY]})},
            ["commas: positive texts differ from negative ones by -0."],
        ),
    ],
)
def test_a_fault_is_one_line(tones: dict[str, Variant], words: list[str], tokens: Callable[[str], int]) -> None:
    assert [line for line in faults(tones, tokens) if all(word in line for word in words)] != []


def test_three_texts_of_a_tone_may_share_four_words(tokens: Callable[[str], int]) -> None:
    tones = altered("joy", {at: f"{JOY[at]} How glad we are." for at in range(3)})
    assert [line for line in faults(tones, tokens) if "texts contain" in line] == []


@pytest.mark.parametrize("name", ["anxiety", "gratitude"])
def test_every_text_a_token_longer_is_a_fault_of_balance(name: str, tokens: Callable[[str], int]) -> None:
    valence = TONES[name].valence
    longer = {text for tone in TONES.values() if tone.valence == valence for text in tone.paraphrases}
    lines = list(faults(TONES, lambda text: tokens(text) + (text in longer)))
    assert any(line.startswith("tokens: positive texts differ from negative ones by") for line in lines)


def test_lengths_that_vary_more_in_one_valence_are_a_fault_of_balance() -> None:
    texts = {text: at for tone in TONES.values() for at, text in enumerate(tone.paraphrases)}
    positive = {text for tone in TONES.values() if tone.valence == "positive" for text in tone.paraphrases}
    lines = list(faults(TONES, lambda text: 23 + texts[text] % 3 if text in positive or not texts[text] % 4 else 24))
    assert [line for line in lines if line.startswith("tokens:")] != []


def test_what_has_no_text_is_no_tone() -> None:
    assert list(faults({"control": Variant()}, len)) == []


def test_alpha_is_that_of_the_published_example() -> None:
    missing = float("nan")
    ratings = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, missing, missing, missing],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, missing, 3],
        [missing, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, missing],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, missing],
    ]
    assert alpha(np.array(ratings).T) == pytest.approx(0.849, abs=5e-4)
    assert alpha(np.array([[1.0, 1.0], [7.0, 7.0]])) == 1
    assert np.isnan(alpha(np.ones((3, 2))))


def rated(
    tones: dict[str, Variant], **scales: Callable[[Variant], list[int]]
) -> dict[str, dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]]]:
    """Ratings of three people that agree with the labels, except on the scales that are given."""
    ratings = {}
    for tone in tones.values():
        agreeing = {
            "valence": [{"negative": 2, "positive": 6}.get(tone.valence or "", 4)] * 3,
            "arousal": [{"high": 6}.get(tone.arousal or "", 2)] * 3,
            "instruction": [0, 0, 1],
        }
        values = {name: scales[name](tone) if name in scales else agreeing[name] for name in agreeing}
        for text in tone.paraphrases:
            ratings[text] = {name: np.array(value, dtype=np.float64) for name, value in values.items()}
    return ratings


def test_ratings_that_agree_with_the_labels_are_no_fault() -> None:
    assert list(rating_faults(TONES, rated(TONES))) == []


def test_ratings_on_the_wrong_side_of_neutral_are_faults_of_each_text() -> None:
    lines = list(rating_faults(TONES, rated(TONES, valence=lambda tone: [4, 4, 4])))
    assert len(lines) == 8 * LEAST
    assert f"joy: rated 4.0 in valence, but labelled positive: {JOY[0]}" in lines
    (line, *others) = rating_faults({"filler": TONES["filler"]}, rated(TONES, valence=lambda tone: [5, 5, 6]))
    assert line.startswith("filler: rated 5.3 in valence, but labelled neutral")
    assert len(others) == LEAST - 1


def test_an_instruction_that_two_raters_see_is_a_fault() -> None:
    lines = list(rating_faults(TONES, rated(TONES, instruction=lambda tone: [0, tone is TONES["joy"], 1])))
    assert len(lines) == LEAST
    assert lines[0] == f"joy: 2 raters see an instruction: {JOY[0]}"


def test_a_tone_of_high_arousal_is_rated_above_those_of_low_arousal() -> None:
    lines = list(rating_faults(TONES, rated(TONES, arousal=lambda tone: [2 if tone is TONES["joy"] else 3] * 3)))
    assert "joy is rated 2.0 in arousal, warmth 3.0: exchange their labels" in lines
    assert not any(line.startswith(("warmth is", "disappointment is")) for line in lines)


def test_a_text_that_nobody_rated_is_a_fault() -> None:
    (line,) = rating_faults(altered("joy", {5: "Hooray!"}), rated(TONES))
    assert line == "joy: not rated: Hooray!"


def fill(path: Path, sheet: str, **values: str) -> Path:
    """A rater's sheet, filled with the same ratings everywhere."""
    rating = {"valence": "5", "arousal": "3", "instruction": "0", **values}
    ids = [line.split("\t")[0] for line in sheet.splitlines()[1:]]
    path.write_text("\n".join(["\t".join(["id", *rating]), *("\t".join([name, *rating.values()]) for name in ids)]))
    return path


def test_a_sheet_shows_texts_without_their_tones_and_comes_back_as_ratings(tmp_path: Path) -> None:
    blank = sheet(TONES, seed=1)
    texts = [line.split("\t")[1] for line in blank.splitlines()[1:]]
    assert sorted(texts) == sorted(text for tone in TONES.values() for text in tone.paraphrases)
    assert texts != sorted(texts)
    assert blank != sheet(TONES, seed=2)
    assert not set(TONES) & set(blank.replace("\t", "\n").splitlines())
    table = tmp_path / "ratings.csv"
    table.write_text(combined(TONES, [fill(tmp_path / f"{n}.tsv", blank, valence=f"{n}") for n in (1, 2, 7)]))
    ratings = read_ratings(table)
    assert set(ratings) == set(texts)
    assert ratings[texts[0]]["valence"].tolist() == [1, 2, 7]
    assert ratings[texts[0]]["instruction"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", ["0", "8", "", "much", "4.5"])
def test_a_rating_off_its_scale_is_refused(tmp_path: Path, value: str) -> None:
    path = fill(tmp_path / "a.tsv", sheet(TONES, 1), valence=value)
    with pytest.raises(RatingError, match=r"a\.tsv: no complete rating of") as caught:
        combined(TONES, [path])
    assert identifier(TONES["filler"].paraphrases[0]) in str(caught.value)
    table = tmp_path / "ratings.csv"
    table.write_text(f"tone,text,valence_1,arousal_1,instruction_1\njoy,Hooray!,{value},4,0\n")
    with pytest.raises(RatingError, match=r"ratings\.csv, line 2: no valence from 1 to 7"):
        read_ratings(table)


def test_the_script_prints_a_table_and_each_fault(
    tmp_path: Path, smollm2: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(
        *arguments: str | Path, tokenizer: Path = smollm2 / "tokenizer.json"
    ) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["check_texts", "--tokenizer", str(tokenizer), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    code, table, errors = check(*FILES)
    assert (code, errors) == (0, "")
    assert len([line for line in table.splitlines() if line.split()[1:2] == [str(LEAST)]]) == len(EVERY)
    assert "positive − negative, tokens: " in table
    short = tmp_path / "short.yaml"
    short.write_text("variants: {calm: {valence: positive, text: All is well.}}\n")
    code, _, errors = check(short)
    assert code == 1
    assert errors.splitlines()[:2] == [
        f"calm: 1 texts; write at least {LEAST}, as many as every other tone has",
        "calm: 4 tokens instead of 23 to 25: All is well.",
    ]
    short.write_text("variants: {calm: {valence: happy, text: All is well.}}\n")
    code, _, errors = check(short)
    assert code == 2
    assert "variants.calm.valence" in errors
    code, _, errors = check(*FILES, tokenizer=tmp_path / "none.json")
    assert code == 2
    assert "no such file" in errors
