"""Print the rules of the workflow with their parameters, as JSON: python -m tests.emoprobe.workflow.evaluated_rules CONFIG.

Every stage is of version 2, and digests of code name the modules in their stead, so that both can be seen.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.iocontainers import Wildcards
from snakemake.settings.types import ConfigSettings, OutputSettings, Quietness, ResourceSettings

from emoprobe.workflow import triggers
from tests.workspace import ROOT

WILDCARDS = {
    "variant": "joy",
    "sample": "gsm8k_0001",
    "draw": "",
    "condition": "none",
    "direction": "joy",
    "autoencoder": "seed-1",
    "study": "rules",
    "judge": "polite",
}


def _arguments(function: Any, wildcards: Wildcards) -> list[Any]:
    """The arguments that a function for `params` takes: the wildcards, and perhaps the input files."""
    return [wildcards, []][: len(inspect.signature(function).parameters)]


def main() -> None:
    """Command line; see above."""
    triggers.STAGES.update(dict.fromkeys(triggers.STAGES, 2))
    vars(triggers)["code_digest"] = lambda *modules: f"code {' '.join(modules)}"
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        config = ConfigSettings(configfiles=[Path(sys.argv[1])])
        workflow = api.workflow(
            resource_settings=ResourceSettings(), config_settings=config, snakefile=ROOT / "Snakefile"
        )._workflow
        rules = {}
        for rule in workflow.rules:
            wildcards = Wildcards(fromdict={"experiment": "rules", **WILDCARDS})
            params = [value(*_arguments(value, wildcards)) if callable(value) else value for value in rule.params]
            rules[rule.name] = {"params": [str(value) for value in params], "command": rule.shellcmd or ""}
        print(json.dumps(rules))


if __name__ == "__main__":
    main()
