"""Samples that lm-evaluation-harness itself writes, imported and graded again."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from emoprobe.analysis.trajectory_table import load_trajectories
from emoprobe.command.main import main

QUESTIONS = 1000
# Templates of completions: `{}` is the answer.
COMPLETIONS = (
    "First 3 + 4 = 7.\nThen we add the rest.\n#### {}",
    "He has 12 boxes, so 12 * 2 = 24.\nThe answer is {}.",
    "#### {}",
    "We need 1,250 - 50 = 1,200 of them.\n#### ${}",
    "So the result is \\boxed{{{}}}",
    "Answer: {}",
)


def generate(folder: Path) -> Path:
    """Run lm-evaluation-harness with the task GSM8K on local questions, and a model that is often wrong."""
    import lm_eval
    from lm_eval.api.model import LM
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.tasks import TaskManager

    draws = random.Random(7)
    answers = [draws.choice([draws.randint(2, 99), draws.randint(1000, 99999)]) for _ in range(QUESTIONS)]
    questions = [
        {"question": f"What is item {number}?", "answer": f"It is clear.\n#### {answer:,}"}
        for number, answer in enumerate(answers)
    ]
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in questions))

    class Model(LM):  # type: ignore[misc]
        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            shown = []
            for request in requests:
                number = request.doc_id
                value = answers[number] if draws.random() < 0.6 else answers[number] + draws.randint(1, 9)
                text = f"{value:,}" if draws.random() < 0.5 else str(value)
                shown.append(COMPLETIONS[number % len(COMPLETIONS)].format(text))
            return shown

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            return [(-float(len(request.args[1])), True) for request in requests]

        loglikelihood_rolling = loglikelihood

    local = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
    }
    shipped = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"
    gsm8k = yaml.safe_load(shipped.read_text()) | local | {"num_fewshot": 0}
    for key in ("dataset_name", "training_split", "fewshot_split", "tag"):
        del gsm8k[key]
    words = local | {
        "task": "words",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": ["horse", "ox"],
        "doc_to_target": 1,
        "metric_list": [{"metric": "acc"}],
    }
    (folder / "tasks").mkdir()
    for task in (gsm8k, words):
        (folder / "tasks" / f"{task['task']}.yaml").write_text(yaml.safe_dump(task))
    results = lm_eval.simple_evaluate(
        model=Model(),
        tasks=["gsm8k", "words"],
        task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    tracker = EvaluationTracker(output_path=str(folder / "out"))
    tracker.general_config_tracker.model_name = "me/mine"
    tracker.general_config_tracker.model_name_sanitized = "me__mine"
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in samples:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    return folder / "out" / "me__mine"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("lm_eval"))


@pytest.fixture
def few(written: Path, tmp_path: Path) -> Path:
    """The first samples of each task, and the results beside them."""
    folder = tmp_path / "few"
    folder.mkdir()
    for path in written.iterdir():
        lines = path.read_text().splitlines(keepends=True)
        (folder / path.name).write_text(
            "".join(lines if path.suffix == ".json" else lines[:40] + lines[QUESTIONS:][:40])
        )
    return folder


def recorded(folder: Path, filter: str) -> dict[str, bool]:
    """Scores of GSM8K by the id of the question."""
    (path,) = folder.glob("samples_gsm8k_*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {f"sample_{row['doc_id']:04d}": row["exact_match"] == 1 for row in rows if row["filter"] == filter}


def grades(folder: Path) -> dict[str, bool]:
    table = load_trajectories(folder)
    assert table["gold"].notna().all()
    return dict(zip(table["sample_id"], table["correct"], strict=True))


def test_grades_of_1000_samples_equal_its_own_scores(written: Path, tmp_path: Path) -> None:
    samples = next(written.glob("samples_gsm8k_*.jsonl"))
    own = recorded(written, "flexible-extract")
    assert len(own) == QUESTIONS
    assert 400 < sum(own.values()) < 800
    options = ["--filter", "flexible-extract", "--regrade"]
    assert main(["import", str(samples), "-o", str(tmp_path / "again"), *options]) == 0
    assert grades(tmp_path / "again") == own


def test_scores_are_kept_as_recorded(few: Path, tmp_path: Path) -> None:
    """Of a filter that reads fewer answers than our grader."""
    strict = recorded(few, "strict-match")
    assert 0 < sum(strict.values()) < sum(recorded(few, "flexible-extract").values())
    samples = next(few.glob("samples_gsm8k_*.jsonl"))
    assert main(["import", str(samples), "-o", str(tmp_path / "kept"), "--filter", "strict-match"]) == 0
    assert grades(tmp_path / "kept") == strict


def test_options_compared_by_likelihood_and_several_tasks(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", str(few), "-o", str(tmp_path / "both"), "--variant", "model"]) == 0
    count = int(capsys.readouterr().out.removeprefix("me-mine: ").split()[0])
    table = load_trajectories(tmp_path / "both").set_index("sample_id")
    assert len(table) == count
    assert (table["draw"] == 1).all()  # ids of the two tasks are told apart
    assert {"gsm8k_0", "words_0"} <= set(table.index)
    first = table.loc["words_0"]
    assert (first["completion"], first["gold"], bool(first["correct"])) == ("ox", "B", True)
    assert json.loads((tmp_path / "both/metadata.json").read_text())["model"]["id"] == "me/mine"
    # With tasks as variants, ids identify the question across tasks.
    assert main(["import", str(few), "-o", str(tmp_path / "tasks"), "--gold", "doc.nothing"]) == 1
    message = "there is no field 'doc.nothing'; choose one with --gold (fields there: task, model, doc.question"
    assert message in capsys.readouterr().err


def test_options_that_are_numbers_keep_their_gold_answer(tmp_path: Path) -> None:
    """Samples give the index of the right option, which may be the text of another one."""
    options = ["1", "2", "3", "4"]
    samples = [
        {
            "doc_id": number,
            "doc": {},
            "target": "2",
            "arguments": {
                str(place): {"arg_0": f"{number}?", "arg_1": f" {text}"} for place, text in enumerate(options)
            },
            "resps": [[[-1.0 if place == best else -5.0, False]] for place in range(len(options))],
            "filtered_resps": [],
            "acc": float(best == 2),
        }
        for number, best in enumerate((2, 1))
    ]
    path = tmp_path / "samples_numbers.jsonl"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    for name, options in (("kept", []), ("again", ["--regrade"])):
        assert main(["import", str(path), "-o", str(tmp_path / name), *options]) == 0
        table = load_trajectories(tmp_path / name)
        assert (list(table["gold"]), list(table["correct"])) == (["C", "C"], [True, False])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "line 1 is no sample of lm-evaluation-harness"),
        ("{", "line 1 is no JSON"),
        ('{"doc_id": 1, "arguments": {}, "resps": []}', "line 1: arguments and resps are not as expected"),
    ],
)
def test_a_file_that_is_none_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    path = tmp_path / "samples_x_2026-01-01T00-00-00.0.jsonl"
    path.write_text(line + "\n")
    assert main(["import", str(path), "-o", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_chats_and_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A prompt of a chat is JSON text, in a list where it is a `JsonChatStr`; repeats are draws."""
    chat = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}])
    lines = []
    for number, prompt in enumerate((chat, [chat])):
        arguments = {"gen_args_0": {"arg_0": prompt, "arg_1": {"until": [], "max_gen_toks": 8}}}
        lines.append({"doc_id": number, "target": "2", "arguments": arguments, "resps": [["Answer: 2", "Answer: 3"]]})
    path = tmp_path / "samples_chat.jsonl"
    path.write_text("".join(json.dumps({"filter": "none", **line}) + "\n" for line in lines))
    assert main(["import", str(path), "-o", str(tmp_path / "out")]) == 0
    table = load_trajectories(tmp_path / "out")
    assert list(table["correct"]) == [True, False, True, False]
    assert list(table["draw"]) == [1, 2, 1, 2]
    assert set(table["question"]) == {"1 + 1?"}
    assert main(["import", str(path), "-o", str(tmp_path / "other"), "--filter", "strict"]) == 1
    assert "no sample has the filter 'strict'; choose another --filter (none)" in capsys.readouterr().err
