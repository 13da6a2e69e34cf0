"""How many pairs may fail, whatever else of them is made."""

from __future__ import annotations

import asyncio
from typing import Any

from emoprobe.results.activation_folder import ActivationFolder
from tests.server.pool.house import House
from tests.server.pool.test_api import Api, serving
from tests.server.pool.test_jobs import PAIRS


def test_what_is_measured_of_a_pair_hides_no_failure_of_its_capture(house: House) -> None:
    capturing = Api()
    capturing.model = "a"
    capturing.faults = [{"kind": "status", "status": 500, "times": 999}]

    async def scenario() -> list[str]:
        async with serving(capturing) as urls, house.pool():
            sections: dict[str, Any] = {
                "graders": ["number", {"name": "logprob"}],
                "generation": {"allowed_failures": 0.25},
            }
            workers = {"capture_endpoints": urls, "attempts": 1}
            house.add("two")
            layout = house.add("one", workers=workers, capture={"enabled": True}, **sections)
            answers = []
            for pair in PAIRS[:4]:
                assert await house.ask("generate", "one", *pair) == "ok\n"
                answers.append(await house.ask("capture", "one", *pair))
                assert await house.ask("outcomes", "one", *pair) == "ok\n"
            assert ActivationFolder.read(layout.activations(*PAIRS[0])).metadata.error
            # One that comes back makes room for another.
            capturing.faults = []
            assert await house.ask("capture", "one", *PAIRS[0]) == "ok\n"
            capturing.faults = [{"kind": "status", "status": 500, "times": 999}]
            assert await house.ask("generate", "one", *PAIRS[4]) == "ok\n"
            return [*answers, *[await house.ask("capture", "one", *pair) for pair in (PAIRS[4], PAIRS[2])]]

    answers = asyncio.run(scenario())
    assert [answer == "ok\n" for answer in answers] == [True, True, False, False, True, False]
    assert "allows 2 of 8 pairs to fail; 2 have been recorded" in answers[2]
