"""Activations to object storage and back: requests, requests in flight, seconds; beside Snakemake's own S3 plugin."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emoprobe import load_activations
from emoprobe.config.execution.storage import Storage
from emoprobe.results.layout import Layout
from emoprobe.storage.pull import pull
from emoprobe.storage.push import push
from tests.benchmarks.measure import report
from tests.emoprobe.storage import folders
from tests.faulty_proxy import FaultyProxy
from tests.seaweed import BUCKET, SeaweedFS, environment

VARIANTS, SAMPLES, D = 10, 1000, 1024  # 10,000 folders of 48 KiB
FILES = 2  # a folder has
JOBS = 30  # of the plugin's workflow
# An interpreter that has snakemake-storage-plugin-s3, whose dependencies are not those of a run.
PLUGIN = "EMOPROBE_S3_PLUGIN_PYTHON"
SNAKEFILE = """
rule all:
    input: [storage.s3(f"s3://{bucket}/{prefix}/{{n}}/{{name}}") for n in range({jobs}) for name in ("a.safetensors", "metadata.json")]
rule make:
    output: [storage.s3("s3://{bucket}/{prefix}/{{n}}/" + name) for name in ("a.safetensors", "metadata.json")]
    shell: "head -c 48K /dev/zero > {{output[0]}}; echo '{{{{}}}}' > {{output[1]}}"
"""


def run(_options: list[str]) -> None:
    """Push 10,000 small folders, push them once more, read one hook point of them, pull them; then the plugin."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = SeaweedFS(folder / "seaweed")
        proxy = FaultyProxy(store.port)
        os.environ.update(environment(proxy.port))
        try:
            _ours(folder, proxy)
            _plugin(folder, proxy)
        finally:
            proxy.stop()
            store.stop()


def _ours(folder: Path, proxy: FaultyProxy) -> None:
    layout, back = Layout(folder / "results/many"), Layout(folder / "back/many")
    layout.root.mkdir(parents=True)
    pairs = folders.write(layout, VARIANTS, SAMPLES, D)
    settings = Storage(url=f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}")
    with _measured("push", proxy, len(pairs)):
        push(layout, pairs, settings)
    with _measured("push again", proxy, len(pairs)):
        push(layout, pairs, settings)
    with _measured("read one hook point", proxy, len(pairs)):
        load_activations(f"{settings.url}/many", folders.POINTS[0], folders.POSITIONS[0])
    with _measured("pull", proxy, len(pairs)):
        pull(back, settings)


def _plugin(folder: Path, proxy: FaultyProxy) -> None:
    """What the same kind of files cost where Snakemake itself has them in the bucket."""
    python = os.environ.get(PLUGIN)
    if python is None:
        report("storage", what="Snakemake's S3 plugin", skipped=f"{PLUGIN} names no interpreter that has it")
        return
    workflow = folder / "plugin"
    workflow.mkdir()
    text = SNAKEFILE.format(bucket=BUCKET, prefix=uuid.uuid4().hex[:8], jobs=JOBS)
    (workflow / "Snakefile").write_text(text)
    command = [python, "-m", "snakemake", "--cores", "64", "--quiet", "all"]
    command += ["--storage-s3-endpoint-url", f"http://127.0.0.1:{proxy.port}"]
    command += ["--storage-s3-access-key", os.environ["AWS_ACCESS_KEY_ID"]]
    command += ["--storage-s3-secret-key", os.environ["AWS_SECRET_ACCESS_KEY"]]
    with _measured("Snakemake's S3 plugin", proxy, JOBS):
        subprocess.run(command, cwd=workflow, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _measured(what: str, proxy: FaultyProxy, count: int) -> Iterator[None]:
    started = time.monotonic()
    with proxy.counting() as requests:
        yield
        seconds, in_flight = time.monotonic() - started, proxy.most_in_flight
    sent, received = (sum(getattr(each, name) for each in proxy.requests) / 2**20 for name in ("sent", "received"))
    total = sum(requests.values())
    report(
        "storage", what=what, folders=count, seconds=seconds, requests=total, requests_a_file=total / (FILES * count),
        requests_a_folder=total / count, in_flight=in_flight, sent_mib=sent, received_mib=received,
    )  # fmt: skip
