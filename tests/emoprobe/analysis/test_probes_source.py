"""Activation folders as the source of the probes: what is there is read, what is not is left out."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from emoprobe.analysis.probes.activation_source import folder_source
from emoprobe.results import atomic
from emoprobe.results.activation_folder import (
    METADATA,
    TENSORS,
    ActivationError,
    ActivationFolder,
    ActivationMetadata,
    TokenPosition,
    TokenSpans,
)
from emoprobe.results.catalogue import tables_of
from emoprobe.results.layout import Layout
from emoprobe.results.tables import read_table
from scripts import probe_activations
from tests.emoprobe.analysis import synthetic

LAYERS, D = 2, 6


def write_folder(path: Path, generator: np.random.Generator, empty: bool) -> None:
    path.mkdir(parents=True)
    save_file({"layer.output": generator.normal(size=(LAYERS, 2, D)).astype(np.float16)}, path / TENSORS)
    metadata = ActivationMetadata(
        dtype="float16",
        layers=[0, 5],
        hook_points=["layer.output"],
        positions=[
            TokenPosition(name="prefix_mean", span=(0, 1), empty=empty),
            TokenPosition(name="response_mean", span=(1, 2)),
        ],
        token_ids=[1, 2],
        spans=TokenSpans(response=(1, 2)),
        shapes={"layer.output": [LAYERS, 2, D]},
        sha256="",
        bytes=0,
    )
    atomic.write_text(path / METADATA, metadata.model_dump_json())


@pytest.fixture
def experiment(tmp_path: Path) -> tuple[Layout, pd.DataFrame]:
    """Twelve questions in ten variants, two draws of one question; the last two questions were not captured."""
    settings = synthetic.config(synthetic.BALANCED)
    table = synthetic.table(settings, 12, 0).assign(draw=1)
    again = table[table["sample_id"] == "s_0000"].assign(draw=2)
    table = pd.concat([table, again], ignore_index=True)
    layout, generator = Layout(tmp_path), np.random.default_rng(0)
    for row in table.itertuples():
        name = f"{row.sample_id}-d2" if row.draw == 2 else str(row.sample_id)
        if name < "s_0010":
            write_folder(layout.activations(str(row.variant), name), generator, empty=str(row.variant) == "control")
    return layout, table


def test_rows_without_a_folder_are_left_out(experiment: tuple[Layout, pd.DataFrame]) -> None:
    layout, table = experiment
    source = folder_source(layout, table)
    assert len(source.rows) == 10 * 11
    assert set(table["sample_id"].iloc[source.rows]) == {f"s_{number:04d}" for number in range(10)}
    block = source.load(1, 2, "layer.output")
    assert block["response_mean"].shape == (110, 1, D)
    assert source.empty["prefix_mean"].sum() == 11
    failed = table.assign(failure=pd.array(["no answer"] + [None] * (len(table) - 1), dtype="string"))
    assert len(folder_source(layout, failed).rows) == 109
    with pytest.raises(ActivationError, match="has activations"):
        folder_source(layout, table[table["sample_id"] == "s_0011"])


def test_rows_that_no_server_captured_are_left_out(experiment: tuple[Layout, pd.DataFrame]) -> None:
    layout, table = experiment
    for row in table.head(2).itertuples():
        ActivationFolder.write_failure(layout.activations(str(row.variant), str(row.sample_id)), "no server is left")
    source = folder_source(layout, table)
    assert len(source.rows) == 108
    assert not {0, 1} & set(source.rows)
    assert source.load(0, 1, "layer.output")["response_mean"].shape == (108, 1, D)


def test_the_script_writes_every_table_of_its_rule(
    experiment: tuple[Layout, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, table = experiment
    settings = synthetic.config(synthetic.BALANCED)
    config = tmp_path / "config.yaml"
    config.write_text(settings.model_dump_json(), encoding="utf-8")
    monkeypatch.setattr("emoprobe.stages.probes.read_table", lambda *_: table)
    monkeypatch.setattr(sys, "argv", ["", "--config", str(config), "--experiment", str(tmp_path)])
    probe_activations.main()
    for name in tables_of("probe_activations"):
        assert len(read_table(tmp_path, name)), name
    assert set(read_table(tmp_path, "probe_tests")["target"]) == {"variant", "valence", "correct", "correct_within"}
    with safe_open(layout.directions(), "np") as file:
        assert file.get_tensor("diff_means/layer.output/response_mean").shape == (9, LAYERS, D)
        assert file.get_tensor("norm/layer.output/response_mean").shape == (LAYERS,)
        assert file.get_tensor("valence/layer.output/response_mean").shape == (LAYERS, D)
