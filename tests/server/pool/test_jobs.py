"""Answers, failures that are allowed, and captures, from a client's request to the files."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from emoprobe.conversations.requests import request_seed
from emoprobe.results.activation_folder import ActivationFolder
from emoprobe.results.layout import Layout
from emoprobe.results.trajectory import Sample
from tests import byte_tokenizer
from tests.byte_tokenizer import CHATML
from tests.server.pool.house import House, trajectory, until

FAST: Any = {"workers": {"attempts": 2}}
REFUSAL = {"kind": "status", "status": 400, "times": 999}
SAMPLES = [f"gsm8k_{number:04d}" for number in range(1, 5)]
PAIRS = [(variant, sample) for sample in SAMPLES for variant in ("control", "calm")]


def ask_all(house: House, jobs: Sequence[tuple[str, ...]], fault: dict[str, Any] | None = None) -> list[str]:
    """One run that asks for jobs one after the other."""

    async def scenario() -> list[str]:
        house.stub("a").faults = [dict(fault)] if fault else []
        async with house.pool():
            return [await house.ask(*job) for job in jobs]

    return asyncio.run(scenario())


def made_and_made_again(house: House, layout: Layout, pair: tuple[str, str]) -> set[bytes]:
    """Make a trajectory of the experiment "one", delete it and make it again; return what its file held."""
    folder, contents = layout.pair(*pair), set()
    for _ in range(2):
        assert ask_all(house, [("generate", "one", *pair)]) == ["ok\n"]
        contents.add((folder / "trajectory.jsonl").read_bytes())
        for file in folder.iterdir():
            file.unlink()
    return contents


def failures(layout: Layout) -> int:
    return sum(trajectory(layout, *pair).failure is not None for pair in PAIRS if layout.pair(*pair).exists())


def test_each_draw_has_a_seed_and_a_folder_of_its_own(house: House) -> None:
    layout = house.add("one", generation={"draws": 3, "temperature": 1.0})
    names = ["gsm8k_0001", "gsm8k_0001-d2", "gsm8k_0001-d3"]
    jobs = [("generate", "one", variant, name) for name in names for variant in ("control", "calm")]
    assert set(ask_all(house, jobs)) == {"ok\n"}
    seeds = [request["seed"] for request in house.stub("a").requests]
    assert seeds == [request_seed(42, "gsm8k_0001", draw) for draw in (1, 2, 3) for _ in range(2)]
    texts = {trajectory(layout, "calm", name).messages[0]["content"] for name in names}
    assert len(texts) == 1
    assert [trajectory(layout, "calm", name).outcome.sample_id for name in names] == names  # type: ignore[union-attr]


def test_without_an_allowance_a_pair_that_nobody_answers_fails(house: House) -> None:
    layout = house.add("one", **FAST)
    (answer,) = ask_all(house, [("generate", "one", *PAIRS[0])], REFUSAL)
    assert "refused the request" in answer
    assert "generation.allowed_failures is 0" in answer
    assert not layout.pair(*PAIRS[0]).exists()


@pytest.mark.parametrize("kind", ["status", "nonsense", "empty"])
def test_within_the_allowance_a_failure_becomes_a_record(house: House, kind: str) -> None:
    layout = house.add("one", generation={"allowed_failures": 0.25}, **FAST)
    fault = {"kind": kind, "status": 500, "times": 999}
    answers = ask_all(house, [("generate", "one", *pair) for pair in PAIRS[:3]], fault)
    assert answers[:2] == ["ok\n", "ok\n"]  # a quarter of eight pairs
    assert "allows 2 of 8 pairs to fail; 2 have been recorded" in answers[2]
    found = trajectory(layout, *PAIRS[0])
    assert found.failure is not None
    assert "all 2 attempts failed" in found.failure
    assert found.state is not None
    assert len(found.state.attempts) == 2
    assert found.state.token_ids is None


def test_servers_that_change_the_prompt_are_refused_for_good(house: House) -> None:
    layout = house.add("one", **FAST)
    jobs = [("generate", "one", *PAIRS[0])] * 2
    answers = ask_all(house, jobs, {"kind": "other prompt", "times": 999})
    for words in ("every server changes the prompt", "answered another prompt", "take the token ids of a prompt"):
        assert words in answers[0]
    assert "for new attempts" not in answers[0]
    assert len(house.stub("a").requests) == 2  # two attempts, and none when the job is asked for again
    assert not layout.pair(*PAIRS[0]).exists()


def test_the_prompt_that_is_sent_is_the_one_that_is_recorded(house: House) -> None:
    layout = house.add("one", prompt={"date": "2031-02-03"})
    template = "{{ 'Today: ' + strftime_now('%d %b %Y') + ' ' + date_string + '\\n' }}" + CHATML
    (house.folder / "models/a/chat_template.jinja").write_text(template)
    assert ask_all(house, [("generate", "one", "calm", SAMPLES[0])]) == ["ok\n"]
    state = trajectory(layout, "calm", SAMPLES[0]).state
    assert state is not None
    (request,) = house.stub("a").requests
    assert bytes_of(request["prompt"]) == state.prompt_text
    assert state.prompt_token_ids == request["prompt"]
    assert (state.prompt_text or "").startswith("Today: 03 Feb 2031 03 Feb 2031\n<|im_start|>system\n")
    assert state.date == "2031-02-03"
    assert "messages" not in request
    assert [message["role"] for message in state.request["messages"]] == ["system", "user"]


def bytes_of(prompt: list[int]) -> str:
    folder = byte_tokenizer.write(Path(tempfile.mkdtemp()))
    return str(Tokenizer.from_file(str(folder / "tokenizer.json")).decode(prompt, skip_special_tokens=False))


@pytest.mark.parametrize(
    ("prompt", "variant"),
    [
        ({}, {"transform": "beginning:so"}),
        ({"prefill": "So the answer"}, {"text": "Rest."}),
        ({"prefill": "Well"}, {"prefill": "So the answer"}),
    ],
)
def test_a_prefill_is_continued_and_captured_where_it_stands(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: dict[str, Any], variant: dict[str, Any]
) -> None:
    (tmp_path / "beginning.py").write_text(
        "def so(messages):\n    return [*messages, {'role': 'assistant', 'content': 'So the answer'}]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    variants: Any = {"control": {}, "calm": variant}
    layout = house.add("one", variants=variants, capture={"enabled": True}, prompt=prompt)
    pair = ("calm", SAMPLES[0])
    assert ask_all(house, [("generate", "one", *pair), ("capture", "one", *pair)]) == ["ok\n", "ok\n"]
    found = trajectory(layout, *pair)
    assert found.state is not None
    assert (found.state.prompt_text or "").endswith("<|im_start|>assistant\nSo the answer")
    assert found.state.prefill == len("So the answer")
    assert [message["role"] for message in found.messages] == ["system", "user", "assistant"]
    assert found.completion.startswith("So the answerI think about it")
    asked = house.stub("a").requests[-1]
    start, end = asked["ndif"]["token_spans"]["question"]
    assert bytes_of(asked["prompt"][start:end]) == "0 + 1?"
    assert asked["ndif"]["prompt_tokens"] == len(found.state.prompt_token_ids or [])
    assert "messages" not in asked["ndif"]


def test_a_question_that_writes_markup_is_recorded(house: House) -> None:
    layout = house.add("one")
    sample = Sample(sample_id=SAMPLES[0], index=0, question="1?<|im_end|>", answer="1", source={})
    sample.write(layout.sample(SAMPLES[0]))
    assert ask_all(house, [("generate", "one", *PAIRS[0]), ("generate", "one", "control", SAMPLES[1])]) == ["ok\n"] * 2
    states = [trajectory(layout, "control", name).state for name in SAMPLES[:2]]
    assert [state.control_tokens for state in states if state is not None] == [["<|im_end|>"], None]


def test_records_of_earlier_runs_count(house: House) -> None:
    layout = house.add("one", generation={"allowed_failures": 0.25}, **FAST)
    assert ask_all(house, [("generate", "one", *PAIRS[0])], REFUSAL) == ["ok\n"]
    answers = ask_all(house, [("generate", "one", *pair) for pair in PAIRS[1:3]], REFUSAL)
    assert answers[0] == "ok\n"
    assert "2 have been recorded" in answers[1]
    assert failures(layout) == 2


def test_a_record_that_is_made_anew_counts_no_more(house: House) -> None:
    layout = house.add("one", generation={"allowed_failures": 0.125}, **FAST)

    async def scenario() -> list[str]:
        stub = house.stub("a")
        async with house.pool():
            stub.faults = [dict(REFUSAL)]
            answers = [await house.ask("generate", "one", *PAIRS[0])]
            answers.append(await house.ask("generate", "one", *PAIRS[0]))  # the same pair fails once more
            stub.faults = []
            answers.append(await house.ask("generate", "one", *PAIRS[0]))
            stub.faults = [dict(REFUSAL)]
            return [*answers, await house.ask("generate", "one", *PAIRS[1])]

    assert set(asyncio.run(scenario())) == {"ok\n"}
    assert trajectory(layout, *PAIRS[0]).failure is None
    assert trajectory(layout, *PAIRS[1]).failure is not None


def test_many_failures_at_once_stay_within_the_share(house: House) -> None:
    layout = house.add("one", generation={"allowed_failures": 0.4}, **FAST)

    async def scenario() -> list[str]:
        house.stub("a").faults = [dict(REFUSAL)]
        async with house.pool():
            return await asyncio.gather(*(house.ask("generate", "one", *pair) for pair in PAIRS))

    assert asyncio.run(scenario()).count("ok\n") == 3  # the floor of 0.4 × 8
    assert failures(layout) == 3


def test_a_server_that_is_gone_is_no_failed_pair(house: House) -> None:
    layout = house.add("one", generation={"allowed_failures": 0.5})
    house.broken.add("a")
    (answer,) = ask_all(house, [("generate", "one", *PAIRS[0])])
    assert "No model server is left" in answer
    assert not layout.pair(*PAIRS[0]).exists()


def test_the_capture_of_a_failed_trajectory_says_so_and_asks_no_server(house: House) -> None:
    layout = house.add("one", capture={"enabled": True}, generation={"allowed_failures": 0.125}, **FAST)
    jobs = [("generate", "one", *PAIRS[0]), ("capture", "one", *PAIRS[0])]
    assert ask_all(house, jobs, REFUSAL) == ["ok\n", "ok\n"]
    found = ActivationFolder.read(layout.activations(*PAIRS[0])).metadata
    assert found.error == trajectory(layout, *PAIRS[0]).failure
    assert (found.layers, found.hook_points, found.token_ids) == ([], [], [])
    assert not any("ndif" in request for request in house.stub("a").requests)


def test_a_capture_that_no_server_makes_counts_as_a_failed_pair(house: House) -> None:
    layout = house.add("one", capture={"enabled": True}, generation={"allowed_failures": 0.125}, **FAST)
    assert set(ask_all(house, [("generate", "one", *pair) for pair in PAIRS[:2]])) == {"ok\n"}
    answers = ask_all(house, [("capture", "one", *pair) for pair in PAIRS[:2]], REFUSAL)
    assert answers[0] == "ok\n"
    assert "1 have been recorded" in answers[1]
    found = ActivationFolder.read(layout.activations(*PAIRS[0])).metadata
    state = trajectory(layout, *PAIRS[0]).state
    assert found.error is not None
    assert state is not None
    assert found.token_ids == state.token_ids
    # Another run knows it from the folder.
    assert "1 have been recorded" in ask_all(house, [("capture", "one", *PAIRS[1])], REFUSAL)[0]


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (("generate", "nobody", "control", "gsm8k_0001"), "nobody.json cannot be read"),
        (("dance", "one", "control", "gsm8k_0001"), "unknown kind of job 'dance'"),
        (("generate", "one", "control"), "a job of kind generate takes experiment, variant, sample"),
        (("generate", "one", "control", "gsm8k_0099"), "gsm8k_0099.json is missing"),
    ],
)
def test_what_cannot_be_done_is_told(house: House, job: tuple[str, ...], words: str) -> None:
    house.add("one")

    async def scenario() -> str:
        async with house.pool():
            return await house.send(list(job))

    assert words in asyncio.run(scenario())


def test_a_wrong_token_is_told_nothing(house: House) -> None:
    house.add("one")

    async def scenario() -> bytes:
        async with house.pool():
            port = int(house.address.read_text().split()[0])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write("wröng\tstatus\n".encode())
            answer = await reader.read()
            writer.close()
            return answer

    assert asyncio.run(scenario()) == b""


def test_the_status_tells_who_is_served_and_who_waits(house: House) -> None:
    house.add("one", "a", workers={"requests": 1})
    house.add("two", "b")

    async def scenario() -> None:
        async with house.pool():
            house.stub("a").gate.clear()
            jobs = [("one", pair) for pair in PAIRS[:3]] + [("two", PAIRS[0])]
            tasks = [asyncio.create_task(house.ask("generate", name, *pair)) for name, pair in jobs]
            await until(lambda: len(house.stub("a").requests) == 1)

            async def all_wait() -> bool:
                fleets = (await house.status())["fleets"]
                return [(fleet["waiting_for_turn"], fleet["waiting_for_room"]) for fleet in fleets] == [(0, 2), (1, 0)]

            await until(all_wait)
            status = await house.status()
            assert status["running"] == {"generate": 4}
            first, second = status["fleets"]
            assert (first["model"], first["experiments"], first["standing"]) == ("a", ["one"], True)
            assert (second["model"], second["experiments"], second["standing"]) == ("b", ["two"], False)
            (worker,) = first["workers"]
            assert (worker["name"], worker["state"], worker["phase"], worker["in_flight"]) == (
                "vllm-0",
                "live",
                "at work",
                1,
            )
            assert second["workers"][0]["phase"] == "waits for its turn"
            house.stub("a").gate.set()
            assert set(await asyncio.gather(*tasks)) == {"ok\n"}

    asyncio.run(scenario())


def test_servers_end_when_no_run_has_work_for_them(house: House) -> None:
    house.add("one", capture={"enabled": True})

    async def scenario() -> None:
        async with house.pool():
            assert await house.ask("generate", "one", *PAIRS[0]) == "ok\n"
            await house.remain("generate", "capture")
            await house.remain("capture", directory=house.folder / "another")
            assert house.standing["vllm"] == 1
            await house.remain("capture")
            await until(lambda: house.standing["vllm"] == 0)
            assert house.standing["nnsight"] == 1  # it was started early, for the captures
            # A request that nobody has announced starts the servers again, and keeps them.
            assert await house.ask("generate", "one", *PAIRS[1]) == "ok\n"
            await house.remain("capture", directory=house.folder / "another")
            assert house.standing["vllm"] == 1
            await house.remain()
            await until(lambda: house.standing["vllm"] == 0)
            assert house.standing["nnsight"] == 1  # which another run needs
            await house.remain(directory=house.folder / "another")
            await until(lambda: house.standing["nnsight"] == 0)

    asyncio.run(scenario())


def test_servers_stay_for_the_next_run_with_keep_alive(house: House) -> None:
    house.add("one")

    async def scenario() -> None:
        async with house.pool(keep_alive=1000.0):
            assert await house.ask("generate", "one", *PAIRS[0]) == "ok\n"
            await house.remain()
            assert house.standing["vllm"] == 1
            assert "stop vllm a" not in house.diary

    asyncio.run(scenario())
