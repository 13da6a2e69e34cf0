"""Write trajectories as logs of Inspect, which its viewer opens: one `.eval` file a variant."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_string_dtype

import emoprobe
from emoprobe.analysis.trajectory_table import load_trajectories
from emoprobe.exchange.conversation import RECORD, RECORDED, STOP_REASONS, ExchangeError
from emoprobe.graders.registry import OUTCOME_PREFIX
from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.metadata import RunMetadata
from emoprobe.results.trajectory import AgentState, Message, SampleFile, Trajectory, message_text

DESCRIBED = ("question", "group", "valence", "asks", "paraphrase")
# Of earlier turns, as of the last one, tokens and the response of the server stay out of a log.
LARGE = {"prompt_token_ids", "completion_token_ids", "response"}
GRADES = {"strict": "correct", "lenient": "lenient"}


def write_logs(folder: Path, output: Path) -> list[Path]:
    """Write the trajectories of a folder as logs of Inspect, and return their paths.

    Args:
        folder: of an experiment, or any folder of trajectories.
        output: folder of the logs; existing logs of the same names are an error.

    Raises:
        ExchangeError: a log exists.
        FileNotFoundError: there is no trajectory.
        ModuleNotFoundError: `inspect_ai` is not installed.
    """
    from inspect_ai.log import write_eval_log

    table, layout = load_trajectories(folder), Layout(folder)
    metadata = RunMetadata.of(layout)
    experiment = folder.absolute().name
    paths = {variant: output / f"{experiment}_{variant}.eval" for variant in table["variant"].drop_duplicates()}
    for path in paths.values():
        if path.exists():
            raise ExchangeError(f"{path} exists; choose another --output, or remove it")
    output.mkdir(parents=True, exist_ok=True)
    for variant, path in paths.items():
        rows = table[table["variant"] == variant]
        write_eval_log(_log(layout, experiment, metadata, variant, rows), str(path), format="eval")
    return list(paths.values())


def _log(layout: Layout, experiment: str, metadata: RunMetadata, variant: str, rows: pd.DataFrame) -> Any:
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalMetric,
        EvalPlan,
        EvalResults,
        EvalScore,
        EvalSpec,
        EvalStats,
    )  # fmt: skip
    from inspect_ai.model import GenerateConfig

    samples, states = [], []
    for row in rows.to_dict("records"):
        trajectory = Trajectory.read(layout.pair(variant, draw_id(row["sample_id"], row["draw"])))
        samples.append(_sample(layout, row, trajectory, metadata.model.id or "unknown"))
        states.append(trajectory.state or AgentState())
    request = states[0].request
    config = GenerateConfig(
        max_tokens=request.get("max_tokens"),
        temperature=request.get("temperature"),
        top_p=request.get("top_p"),
        stop_seqs=request.get("stop") or None,
    )
    started = sorted(sample.started_at for sample in samples if sample.started_at)
    ended = [sample.completed_at or sample.started_at for sample in samples if sample.started_at]
    created = started[0] if started else metadata.timestamp or datetime.now(UTC).isoformat()
    scores = [
        EvalScore(
            name=scorer,
            scorer=scorer,
            scored_samples=int(rows[column].notna().sum()),
            metrics={}
            if is_string_dtype(rows[column])
            else {name: EvalMetric(name=name, value=float(rows[column].mean()))},
        )
        for scorer, column in _scorers(rows.columns).items()
        for name in ("accuracy" if scorer in GRADES else "mean",)
        if rows[column].notna().any()
    ]
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=created,
            task=experiment,
            task_id=f"{experiment}_{variant}",
            eval_id=f"{experiment}_{variant}",
            run_id=experiment,
            task_args={"variant": variant},
            dataset=EvalDataset(
                name=experiment, samples=int(rows["sample_id"].nunique()), sample_ids=list(rows["sample_id"].unique())
            ),
            model=metadata.model.id or "unknown",
            model_generate_config=config,
            config=EvalConfig(epochs=int(rows["draw"].max())),
            packages={"emoprobe": emoprobe.__version__},
            metadata={"revision": metadata.model.revision, "dtype": metadata.model.dtype, "seed": metadata.random_seed},
        ),
        plan=EvalPlan(config=config),
        results=EvalResults(
            total_samples=len(rows), completed_samples=int(rows["failure"].isna().sum()), scores=scores
        ),
        stats=EvalStats(started_at=created, completed_at=max(ended, default=created)),
        samples=samples,
    )


def _sample(layout: Layout, row: dict[Any, Any], trajectory: Trajectory, model: str) -> Any:
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import ChatCompletionChoice, ModelOutput, ModelUsage
    from inspect_ai.scorer import Score

    state = trajectory.state or AgentState()
    path = layout.sample(row["sample_id"])
    described = SampleFile.read(path) if path.exists() else SampleFile()
    messages = [_chat(message) for message in trajectory.messages]
    answers = [place for place, message in enumerate(trajectory.messages) if message["role"] == "assistant"]
    opening = messages[: answers[-1]] if answers else messages
    usage = None
    if state.usage.completion_tokens is not None:
        prompt, completion = state.usage.prompt_tokens or 0, state.usage.completion_tokens
        total = prompt + completion if state.usage.total_tokens is None else state.usage.total_tokens
        usage = ModelUsage(input_tokens=prompt, output_tokens=completion, total_tokens=total)
    reason = STOP_REASONS.get(state.finish_reason or "", "unknown")
    choices = [ChatCompletionChoice(message=messages[answers[-1]], stop_reason=reason)] if answers else []
    seconds = state.timing.seconds
    started = None if state.timing.started is None else datetime.fromisoformat(state.timing.started)
    ended = None if started is None or seconds is None else started + timedelta(seconds=seconds)
    failure = trajectory.failure
    gold = _known(row["gold"]) or (described.answer if described.answer is not None else "")
    return EvalSample(
        id=row["sample_id"],
        epoch=int(row["draw"]),
        input=opening,
        choices=described.choices,
        target=str(gold),
        messages=messages,
        output=ModelOutput(model=model, choices=choices, usage=usage, time=seconds),
        scores={
            scorer: Score(value="C" if row[column] else "I", answer=_known(row["extracted"]))
            if scorer in GRADES
            else Score(value=row[column])
            for scorer, column in _scorers(row).items()
            if _known(row[column]) is not None
        },
        metadata={key: value for key in DESCRIBED if (value := _known(row[key])) is not None}
        | {RECORD: _record(state)},
        model_usage={} if usage is None else {model: usage},
        started_at=None if started is None else started.isoformat(),
        completed_at=None if ended is None else ended.isoformat(),
        total_time=seconds,
        error=None if failure is None else EvalError(message=failure, traceback="", traceback_ansi=""),
    )


def _record(state: AgentState) -> dict[str, Any]:
    values = state.model_dump(mode="json", include=RECORDED, exclude={"earlier_turns": {"__all__": LARGE}})
    return {"seed": state.request.get("seed")} | {key: value for key, value in values.items() if value is not None}


def _scorers(columns: Iterable[Any]) -> dict[str, str]:
    """Return the columns that are scores, by the name of the scorer: the grades, and the values of other graders."""
    names = list(map(str, columns))
    found = {scorer: column for scorer, column in GRADES.items() if column in names}
    return found | {name.removeprefix(OUTCOME_PREFIX): name for name in names if name.startswith(OUTCOME_PREFIX)}


def _known(value: Any) -> Any:
    return None if pd.isna(value) else value


def _chat(message: Message) -> Any:
    """Return a message as a class of Inspect."""
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
        ContentReasoning,
        ContentText,
    )  # fmt: skip
    from inspect_ai.tool import ToolCall

    text, role = message_text({"content": message.get("content")}), message["role"]
    if role == "user":
        return ChatMessageUser(content=text)
    if role == "tool":
        return ChatMessageTool(content=text, tool_call_id=message.get("tool_call_id"), function=message.get("name"))
    if role != "assistant":  # also `developer`
        return ChatMessageSystem(content=text)
    thought = message.get("reasoning_content") or message.get("reasoning")
    calls = [
        ToolCall(id=str(call.get("id") or ""), function=_function(call).get("name") or "", arguments=_arguments(call))
        for call in message.get("tool_calls") or []
    ]
    content: Any = [ContentReasoning(reasoning=str(thought)), ContentText(text=text)] if thought else text
    return ChatMessageAssistant(content=content, tool_calls=calls or None, source="generate")


def _function(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    return function if isinstance(function, dict) else {}


def _arguments(call: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call, which OpenAI's API has as JSON text; other text under the name `text`."""
    arguments = _function(call).get("arguments") or {}
    try:
        values = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        values = None
    return values if isinstance(values, dict) else {"text": str(arguments)}
