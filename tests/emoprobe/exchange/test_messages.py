"""Tables of messages in OpenAI's form, their mapping of variants, and hostile content."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emoprobe.analysis.trajectory_table import load_trajectories
from emoprobe.command.main import main
from emoprobe.results.trajectory import Trajectory

Row = dict[str, Any]


def row(variant: str, number: Any, answer: str = "Answer: 7", **fields: Any) -> Row:
    messages = [{"role": "user", "content": f"What is item {number}?"}, {"role": "assistant", "content": answer}]
    return {"variant": variant, "id": number, "messages": messages, "gold": "7", **fields}


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def bring(source: Path, *options: str) -> Path:
    output = source.parent / "imported"
    assert main(["import", str(source), "-o", str(output), *options]) == 0
    return output


def refused(capsys: pytest.CaptureFixture[str], source: Path, *options: str) -> str:
    """Import in vain: nothing is left behind, and the error is one line."""
    before = set(source.parent.iterdir())
    assert main(["import", str(source), "-o", str(source.parent / "imported"), *options]) == 1
    assert set(source.parent.iterdir()) == before
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet", "csv", "folder"])
def test_every_kind_of_file(tmp_path: Path, ending: str) -> None:
    rows = [row(variant, number, f"Answer: {6 + number}") for variant in ("angry", "calm") for number in (1, 2)]
    path = tmp_path / f"rows.{ending}"
    if ending == "jsonl":
        lines(path, rows)
    elif ending == "json":
        path.write_text(json.dumps(rows))
    elif ending == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif ending == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({**one, "messages": json.dumps(one["messages"])} for one in rows)
    else:
        path.mkdir()
        for number, one in enumerate(rows):
            (path / f"{number}.json").write_text(json.dumps(one))
    table = load_trajectories(bring(path, "--reference", "calm"))
    assert list(table["variant"]) == ["angry", "angry", "control", "control"]
    assert list(table["sample_id"]) == ["sample_0001", "sample_0002"] * 2
    assert list(table["correct"]) == [True, False, True, False]
    assert list(table["gold"]) == ["7"] * 4


def test_it_is_analyzed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(variant, number) for variant in ("angry", "control") for number in range(8)]
    folder = bring(lines(tmp_path / "rows.jsonl", rows))
    capsys.readouterr()
    assert main(["analyze", str(folder)]) == 0
    assert "imported: 16 trajectories of an unknown model on 8 samples" in capsys.readouterr().out
    assert (folder / "explorer/index.html").exists()


def test_variants_by_the_beginning_of_the_prompt(tmp_path: Path) -> None:
    """Questions without ids are the same question where the text after the prefix is."""

    def chat(text: str, question: str) -> Row:  # fmt: skip
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{text}{question}"}]
        return {"messages": [*messages, {"role": "assistant", "content": "7"}], "gold": 7}

    texts = ("Argh! ", "Argh! Argh! ", "")
    rows = [chat(text, question) for text in texts for question in ("3 + 4?", "5 + 2?")]
    options = ["--prefix", "angry=Argh! ", "--prefix", "furious=Argh! Argh! "]
    table = load_trajectories(bring(lines(tmp_path / "rows.jsonl", rows), *options))
    assert table.groupby("variant")["question"].apply(list).to_dict() == {
        "angry": ["3 + 4?", "5 + 2?"],
        "control": ["3 + 4?", "5 + 2?"],
        "furious": ["3 + 4?", "5 + 2?"],
    }
    assert table.groupby("question")["sample_id"].nunique().to_list() == [1, 1]


def test_recorded_scores_are_kept_unless_regraded(tmp_path: Path) -> None:
    rows = [row("a", 1, correct=False), row("a", 2, "no idea", correct=True), row("a", 3, gold="Paris", correct=1)]
    path = lines(tmp_path / "rows.jsonl", rows)
    kept = load_trajectories(bring(path))
    assert list(kept["correct"]) == [False, True, True]
    assert list(kept["gold"].fillna("")) == ["7", "7", ""]
    lines(path, rows[:2])
    assert main(["import", str(path), "-o", str(tmp_path / "again"), "--regrade"]) == 0
    assert list(load_trajectories(tmp_path / "again")["correct"]) == [True, False]


def chat(variant: str, *said: str, **fields: Any) -> Row:
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": text} for place, text in enumerate(said)]
    return {"variant": variant, "messages": messages, "gold": "7", **fields}


def test_conversations_of_several_turns_are_told_apart_by_all_that_was_asked(tmp_path: Path) -> None:
    rows = [chat("a", f"{number} + 5?", "Answer: 7", "Sure?", "Answer: 8", id=None) for number in (2, 3)]
    table = load_trajectories(bring(lines(tmp_path / "rows.jsonl", rows)))
    assert table["sample_id"].nunique() == 2
    assert table[["turns", "correct_first", "survived"]].isna().all(axis=None)  # the file does not say whose answers


def test_a_recorded_score_leaves_the_answer_to_be_read(tmp_path: Path) -> None:
    rows = [row("a", 1, "Answer: A", gold="B", correct=False, choices=["four", "five"])]
    (found,) = load_trajectories(bring(lines(tmp_path / "rows.jsonl", rows))).to_dict("records")
    assert (found["extracted"], found["correct"], found["compliant"], found["gold"]) == ("A", False, True, "B")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reference", "nuetral"], "no conversation has the variant 'nuetral' of --reference (there: angry"),
        (["--prefix", "sad=Woe"], "no message begins with the text of --prefix sad"),
        (["--filter", "strict-match"], "--filter is for samples of lm-evaluation-harness"),
    ],
)
def test_an_option_without_effect_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert said in refused(capsys, lines(tmp_path / "rows.jsonl", [row("angry", 1)]), *options)


def test_the_same_question_twice_is_two_draws(tmp_path: Path) -> None:
    rows = [row("a", 1), row("a", 1, "8"), row("a", 1, "9", draw=5), row("a", 1, "10", draw=5), row("b", 1)]
    table = load_trajectories(bring(lines(tmp_path / "rows.jsonl", rows)))
    assert list(table[table["variant"] == "a"]["draw"].sort_values()) == [1, 2, 5, 6]
    assert list(table[table["variant"] == "b"]["draw"]) == [1]


def test_draws_are_counted_from_1_also_where_a_tool_counts_from_0(tmp_path: Path) -> None:
    rows = [row(variant, number, draw=draw) for variant in "ab" for number in (1, 2) for draw in range(3)]
    table = load_trajectories(bring(lines(tmp_path / "rows.jsonl", rows)))
    assert table.groupby("sample_id")["draw"].agg(list).tolist() == [[1, 2, 3] * 2] * 2


def test_what_json_cannot_hold_is_missing(tmp_path: Path) -> None:
    rows = [row("a", 1, seconds=float("nan"), score=float("nan")), row("a", 2, seconds=float("inf"), correct=True)]
    table = load_trajectories(bring(lines(tmp_path / "rows.jsonl", rows)))
    assert list(table["correct"]) == [True, True]  # graded, and as recorded


HOSTILE = [
    "../../../etc/passwd", "..", ".", "/absolute", "a/b", "a\\b", "nul\0byte", "x" * 300, "x" * 299 + "y", "", "tables",
    "Samples", "activations", "reformatted-1", "-o", "new\nline", "é", "e", "q_0001-d2", "q_0001", "‮rtl",
    "A", "a",
]  # fmt: skip


def test_hostile_names_stay_inside(tmp_path: Path) -> None:
    """Variants and ids with separators, `..`, names of the layout, 300 characters, and the name of another draw."""
    rows = [row(variant, "q_0001") for variant in HOSTILE] + [row("plain", name) for name in HOSTILE]
    inside = tmp_path / "inside"
    inside.mkdir()
    folder = bring(lines(inside / "rows.jsonl", rows))
    assert {path.name for path in tmp_path.iterdir()} == {"inside"}
    assert {path.name for path in inside.iterdir()} == {"rows.jsonl", "imported"}
    table = load_trajectories(folder)
    assert len(table) == len(rows)
    assert table["variant"].nunique() == len(HOSTILE) + 1
    plain = table[table["variant"] == "plain"]
    assert plain["sample_id"].nunique() == len(HOSTILE)
    assert (plain["draw"] == 1).all()
    assert table["variant"].str.lower().nunique() == table["variant"].nunique()
    assert table["sample_id"].str.fullmatch("[A-Za-z0-9_-]{1,64}").all()
    originals = {json.loads(path.read_text())["source"]["id"] for path in folder.glob("samples/*.json")}
    assert originals == set(HOSTILE)
    named = json.loads((folder / "metadata.json").read_text())["imported"]["variants"]
    assert set(named.values()) == {*HOSTILE, "plain"}


def test_long_text_and_foreign_fields(tmp_path: Path) -> None:
    text = "<script>alert(1)</script>\u2028\x1b[31m" + "long " * 400_000 + "\nAnswer: 7"
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    one = row("a", 1, text)
    one["messages"][1:1] = [
        {"role": "assistant", "content": None, "tool_calls": calls, "logprobs": [1]},
        {"role": "tool", "content": "8", "tool_call_id": "c1"},
    ]
    folder = bring(lines(tmp_path / "rows.jsonl", [one]))
    messages = Trajectory.read(folder / "a/sample_0001").messages
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1] == {"role": "assistant", "content": "", "tool_calls": calls}
    assert messages[3]["content"] == text


def test_errors_name_the_place_and_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"

    def error(rows: list[Any], *options: str) -> str:
        return refused(capsys, lines(path, rows), *options)

    good = row("a", 1)
    assert "line 2: there is no field 'variant'; choose one with --variant (fields there: id, messages, gold)" in error(
        [good, {key: value for key, value in good.items() if key != "variant"}]
    )
    assert "there is no field 'tone.deep'" in error([good], "--variant", "tone.deep")
    assert "line 1: there is neither a gold answer that can be graded" in error([{**good, "gold": None}])
    assert "neither a gold answer" in error([{**good, "gold": "Paris"}])
    assert "there is no column 'f1' for --score (columns there: variant, id" in error([good], "--score", "f1")
    assert "there is no column messages (columns there: text)" in error([{"text": "x"}])
    assert "message 1 has no role" in error([{**good, "messages": [{"content": "x"}]}])
    assert "neither an object nor a list" in error([3])
    assert "the gold answer of 1 is '8', and was '7' in another conversation" in error([good, row("b", 1, gold=8)])
    assert "half a surrogate pair" in error([row("a", 1, "\ud83d")])
    assert "half a surrogate pair" in error([row("a", "\ud83d")])
    assert "there are no conversations" in error([])
    assert "messages is no single value" in error([good], "--variant", "messages")
    assert "NAME=TEXT" in error([good], "--prefix", "angry")
    assert "--variant or --prefix" in error([good], "--prefix", "angry=x", "--variant", "id")
    path.write_text('{"a": 1}\n{"b": ')
    assert "line 1: there is no column messages" in refused(capsys, path)
    (tmp_path / "broken.parquet").write_text("PAR1")
    assert "broken.parquet cannot be read" in refused(capsys, tmp_path / "broken.parquet")
    assert "does not exist" in refused(capsys, tmp_path / "none.jsonl")
    assert "must be a folder, or end in" in refused(capsys, tmp_path / "rows.txt")
    lines(path, [good])
    (tmp_path / "imported").mkdir()
    (tmp_path / "imported/mine").write_text("mine")
    assert "imported exists and is not empty; choose another --output" in refused(capsys, path)
    lines(tmp_path / "samples_task.jsonl", [])
    assert "several formats; choose one with --format" in refused(capsys, tmp_path)


def test_a_file_is_read_row_by_row(tmp_path: Path) -> None:
    """A reader that collects rows would keep all of them."""
    from emoprobe.exchange.messages import read_table

    path = lines(tmp_path / "rows.jsonl", [row("a", number) for number in range(3)])
    with path.open("a") as file:
        file.write("{ damaged\n")
    conversations = read_table(path)
    assert [next(conversations).id for _ in range(3)] == ["0", "1", "2"]
