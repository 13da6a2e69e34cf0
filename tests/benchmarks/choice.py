"""Log-likelihoods of options by lm-evaluation-harness and by the grader `choice`: the same prompts, the same weights."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.config.science.graders import ChoiceGrader
from emoprobe.conversations.rendering import Renderer
from emoprobe.conversations.requests import chat_request, rendered_prompt
from emoprobe.conversations.samples import draw
from emoprobe.conversations.scoring import check_scored, forced_options, log_probabilities, score_body
from emoprobe.graders.answers import LETTERS
from emoprobe.graders.registry import Answer, choice
from emoprobe.models.tokens import encoder
from emoprobe.results.trajectory import Sample
from tests.benchmarks.measure import embedded_model, report
from tests.nnsight_server import NNsightServer
from tests.workspace import ROOT

QUESTIONS = 100
ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
METRICS = {"acc": "none", "acc_norm": "characters", "acc_bytes": "bytes"}


def run(arguments: list[str]) -> None:
    """100 questions with four options: the shipped ones, and sums whose options are words of several tokens."""
    parser = argparse.ArgumentParser(prog="choice")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    count: int = parser.parse_args(arguments).questions
    model = embedded_model()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = _config(folder, count)
        samples = list(draw(config.dataset, config.experiment.seed))
        prompts = _prompts(config, samples, model)
        started = time.monotonic()
        ours = _ours(config, samples, prompts, model, folder)
        seconds, started = time.monotonic() - started, time.monotonic()
        theirs = _theirs(samples, prompts, model, folder)
        other = time.monotonic() - started
    pairs = list(zip(ours, theirs, strict=True))
    differences = [abs(a - b) for mine, other in pairs for a, b in zip(mine["logs"], other["logs"], strict=True)]
    agreement = {f"same_{name}": sum(mine[name] == other[name] for mine, other in pairs) for name in METRICS}
    shares = {name: sum(mine[name] for mine in ours) / count for name in METRICS}
    report(
        "choice", questions=count, options=len(differences), largest_difference=f"{max(differences):.1e}",
        same_argmax=sum(_best(mine["logs"]) == _best(other["logs"]) for mine, other in pairs), **agreement, **shares,
        seconds=seconds, lm_eval_seconds=other,
    )  # fmt: skip


def _best(logs: list[float]) -> int:
    return logs.index(max(logs))


def _config(folder: Path, count: int) -> Config:
    """The shipped experiment `choice` with more questions."""
    shipped = ROOT / "config/experiments/choice_questions.jsonl"
    rows = [json.loads(line) for line in shipped.read_text(encoding="utf-8").splitlines()][:count]
    generator = random.Random(0)
    while len(rows) < count:
        first, second = generator.randrange(10, 50), generator.randrange(10, 50)
        gold = first + second
        options = generator.sample([each for each in range(20, 100) if each != gold], 3) + [gold]
        generator.shuffle(options)
        rows.append(
            {"question": f"What is {first} + {second}?", "choices": [*map(_word, options)], "answer": _word(gold)}
        )
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = load_config(ROOT / "config/experiments/choice.yaml")
    return config.model_copy(
        update={"dataset": config.dataset.model_copy(update={"source": str(path), "samples": count})}
    )


def _word(number: int) -> str:
    """A number from 20 to 99 in words."""
    tens, ones = divmod(number, 10)
    return TENS[tens - 2] + (f"-{ONES[ones]}" if ones else "")


def _prompts(config: Config, samples: list[Sample], model: Path) -> list[tuple[str, list[int]]]:
    """Text and tokens of each prompt of `control`, as a run sends them."""
    renderer = Renderer.load(model)
    found = []
    for sample in samples:
        prompt = rendered_prompt(config, renderer, chat_request(config, "model", "control", sample))
        found.append((prompt.text, prompt.token_ids))
    return found


def _ours(
    config: Config, samples: list[Sample], prompts: list[tuple[str, list[int]]], model: Path, folder: Path
) -> list[dict[str, Any]]:
    """Log-likelihoods by the capture server, and what the grader makes of them."""
    settings = config.choice
    assert settings is not None
    encode, found = encoder(model), []
    server = NNsightServer(model, folder / "activations")
    try:
        for sample, (_, ids) in zip(samples, prompts, strict=True):
            logs = []
            for form in forced_options(encode, settings, sample.choices or []):
                body = score_body("tiny", [*ids, *form.tokens])
                answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=600).json()
                checked = check_scored(len(body["prompt"]))(answer)
                logs.append((form.text, sum(log_probabilities(checked, len(ids) + form.given))))
            answer = Answer("", gold=sample.answer, choices=sample.choices, log_p_options=logs)
            graded = {
                name: float(bool(choice(answer, ChoiceGrader(name="choice", normalise=normalise))))  # type: ignore[arg-type]
                for name, normalise in METRICS.items()
            }
            found.append({"logs": [value for _, value in logs], **graded})
    finally:
        server.stop()
    return found


def _theirs(
    samples: list[Sample], prompts: list[tuple[str, list[int]]], model: Path, folder: Path
) -> list[dict[str, Any]]:
    """The same by `lm_eval`, which is given the text of the prompt and the lead."""
    with open(folder / "prompts.jsonl", "w", encoding="utf-8") as file:
        for sample, (text, _) in zip(samples, prompts, strict=True):
            gold = LETTERS.index(str(sample.answer))
            file.write(json.dumps({"prompt": f"{text}Answer:", "choices": sample.choices, "gold": gold}) + "\n")
    task = {
        "task": "emoprobe_choice", "dataset_path": "json", "test_split": "train", "output_type": "multiple_choice",
        "dataset_kwargs": {"data_files": str(folder / "prompts.jsonl"), "cache_dir": str(folder / "cache")},
        "doc_to_text": "prompt", "doc_to_choice": "choices", "doc_to_target": "gold",
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS],
    }  # fmt: skip
    (folder / "emoprobe_choice.yaml").write_text(yaml.safe_dump(task))
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32",
         "--device", "cpu", "--include_path", str(folder), "--tasks", "emoprobe_choice", "--log_samples",
         "--output_path", str(folder / "out")],
        capture_output=True, text=True, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (folder / "out").rglob("samples_emoprobe_choice_*.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = sorted({line["doc_id"]: line for line in lines}.values(), key=lambda line: line["doc_id"])
    return [
        {"logs": [float(one[0]) for one in line["filtered_resps"]], **{name: float(line[name]) for name in METRICS}}
        for line in lines
    ]
