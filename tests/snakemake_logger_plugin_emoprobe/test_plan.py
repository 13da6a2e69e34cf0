"""What a dry run says of its jobs, in groups."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.jobs import Reason
from snakemake.persistence import ParamsChange

from snakemake_logger_plugin_emoprobe import LogHandler, why

OLD, NEW = "'model aa data bb variant cc'", "'model aa data dd variant ee'"


def reason(**attributes: Any) -> str:
    """A reason in Snakemake's own words."""
    made = Reason()
    for name, value in attributes.items():
        if name.startswith("files_"):
            getattr(made, name.removeprefix("files_")).update(value)
        else:
            setattr(made, name, value)
    return str(made)


def changed(old: set[str], new: set[str]) -> ParamsChange:
    return ParamsChange(only_old=old, only_new=new, files={"a"})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (reason(files_missing_output=["a"]), "missing output"),
        (reason(files_updated_input=["a"]), "newer input"),
        (reason(files_updated_input_run=["a"]), "its input is made again"),
        (reason(files_missing_output=["a"], files_updated_input_run=["b"]), "missing output"),
        (reason(input_changed=True), "other set of inputs"),
        (reason(code_changed=True), "code changed"),
        (reason(software_stack_changed=True), "software environment changed"),
        (reason(forced=True), "forced"),
        (reason(params_changed=changed({OLD}, {NEW})), "data, variant changed"),
        (reason(params_changed=changed({"'aa'"}, {"'bb'"})), "params changed"),
        (reason(params_changed=changed({OLD, "'x'"}, {NEW, "'y'"})), "data, variant changed"),
        (reason(params_changed=changed(set(), {"3"})), "params changed"),
        (reason(input_changed=True, params_changed=changed({"'a'"}, {"'b'"})), "other set of inputs; params changed"),
    ],
)
def test_a_reason_is_said_in_short(words: str, expected: str) -> None:
    assert why(words) == expected


def test_jobs_are_counted_by_rule_and_reason() -> None:
    handler = LogHandler(SimpleNamespace(dryrun=True, stdout=True), None)
    assert handler.text() == ""
    missing = reason(files_missing_output=["a"])
    for number in range(96):
        handler.add("generate", {"variant": "joy", "sample": str(number)}, reason(params_changed=changed({OLD}, {NEW})))
    handler.add("generate", {"variant": "calm"}, missing)
    handler.add("capture", {"variant": "joy"}, missing)
    for variant in "abcdef":
        handler.add("capture", {"variant": variant}, reason(files_updated_input_run=["a"]))
    handler.add("verify", {}, missing)
    assert handler.text().splitlines()[1:] == [
        "  96 generate: data, variant changed (variant joy)",
        "  1 generate: missing output (variant calm)",
        "  1 capture: missing output (variant joy)",
        "  6 capture: its input is made again (6 variants)",
        "  1 verify: missing output",
    ]
