"""Run by SkyPilot's own interpreter: parse a task with a catalogue made here, and print what SkyPilot made of it.

Usage: python sky_parse.py TASK HOME. No connection can be opened.
"""

import json
import os
import socket
import sys
from pathlib import Path

task_path, home = sys.argv[1:]
os.environ.update(HOME=home, SKYPILOT_DISABLE_USAGE_COLLECTION="1")


def refuse(*_: object) -> None:
    raise OSError("this test opens no connection")


socket.socket.connect = refuse  # type: ignore[method-assign,assignment]

import sky  # noqa: E402
from sky import catalog  # noqa: E402
from sky.skylet import constants  # noqa: E402

folder = Path(home) / ".sky/catalogs" / constants.CATALOG_SCHEMA_VERSION
GPUS = {"T4": (16, "NVIDIA"), "A10": (24, "NVIDIA"), "H100": (80, "NVIDIA"), "MI300X": (192, "AMD")}
PRICES = {"A10": 0.75, "H100": 2.49}
for path, lines in {
    "common/accelerators.csv": ["AcceleratorName,Clouds", *(f"{name},\"['Lambda']\"" for name in GPUS)],
    "common/metadata.csv": [
        "GPU,MemoryGB,Manufacturer",
        *(f"{name},{gb},{maker}" for name, (gb, maker) in GPUS.items()),
    ],
    "lambda/vms.csv": [
        "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,Region,GpuInfo,SpotPrice",
        *(f"gpu_1x_{name.lower()},{name},1,30,200,{price},us-east-1,,{price}" for name, price in PRICES.items()),
    ],
}.items():
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text("\n".join(lines) + "\n")

task = sky.Task.from_yaml(task_path)
found = []
for resources in task.resources:
    [(name, count)] = resources.accelerators.items()
    types, _ = catalog.get_instance_type_for_accelerator(
        name, count, max_hourly_cost=resources.max_hourly_cost, clouds="lambda"
    )
    stop = resources.autostop_config
    found.append(
        {
            "gpu": name,
            "count": count,
            "max": resources.max_hourly_cost,
            "spot": resources.use_spot,
            "instances": types or [],
            "stop": [stop.idle_minutes, stop.down, stop.wait_for.value],
        }
    )
print(json.dumps({"version": sky.__version__, "resources": found, "run": task.run, "setup": task.setup}))
