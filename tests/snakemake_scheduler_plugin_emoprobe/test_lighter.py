"""What is done once in place of once a job or file says the same as Snakemake's own."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake import common
from snakemake.io import IOFile
from snakemake.output_index import OutputIndex

from snakemake_scheduler_plugin_emoprobe import lighter

PATHS = st.lists(st.text("a{/.", max_size=5).map(lambda text: text.replace("{", "{name}")), min_size=1, max_size=8)


class Rule:
    """As much of a rule as the index of outputs asks for."""

    def __init__(self, *outputs: str) -> None:
        self.outputs = [IOFile(output) for output in outputs]

    def products(self) -> Any:
        return iter(self.outputs)


@pytest.fixture(scope="module")
def originals() -> Any:
    """What Snakemake's own index and signatures are, before this process changes them."""
    own = {"init": OutputIndex.__init__, "match": OutputIndex.match, "parameters": common.get_function_params}
    assert own["match"].__module__ == "snakemake.output_index", "another test has changed Snakemake in this process"
    return own


@given(outputs=PATHS.filter(all), files=st.lists(st.text("a/.", max_size=8), max_size=8))
def test_the_same_rules_are_found_for_a_file(originals: dict[str, Any], outputs: list[str], files: list[str]) -> None:
    rules = [Rule(*outputs[:2]), *(Rule(output) for output in outputs)]
    own, changed = OutputIndex(rules), OutputIndex.__new__(OutputIndex)  # type: ignore[arg-type]
    lighter._by_length(originals["init"])(changed, rules)
    for file in [*files, *(output.replace("{name}", "aa") for output in outputs)]:
        assert lighter._match(changed, file) == own.match(file)


def plain(wildcards: Any, input: Any, *rest: Any, attempt: int = 1, **more: Any) -> None:
    """A function."""


def overwritten(*arguments: Any) -> None:
    """A function that says what it takes."""


overwritten._overwrite_params = ["wildcards", "input"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "function",
    [plain, overwritten, Rule("a").products, functools.partial(plain, 1), lambda wildcards: 1, len, Rule.products],
)
def test_the_same_parameters_are_found_for_a_function(originals: dict[str, Any], function: Any) -> None:
    changed = lighter._read_once(originals["parameters"])
    for _ in range(2):
        found, own = changed(function), originals["parameters"](function)
        assert list(found) == list(own)
        if function is not overwritten:
            assert {name: each.kind for name, each in found.items()} == {name: each.kind for name, each in own.items()}


def test_the_changes_are_made() -> None:
    """In a process of its own, as they last."""
    program = """
from snakemake import common, rules, output_index
from snakemake_scheduler_plugin_emoprobe import lighter
lighter.lighten()
assert output_index.OutputIndex.match is lighter._match
assert rules.get_function_params is common.get_function_params
assert common.get_function_params.__module__ == lighter.__name__
"""
    subprocess.run([sys.executable, "-c", program], check=True)
