"""One workflow run as the pool sees it: its experiments, and the pool that it uses."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.config.science.generation import Backend
from emoprobe.config.science.judge import JudgeGrader
from emoprobe.config.section import is_local
from emoprobe.conversations import kinds, variants
from emoprobe.conversations.requests import tool_choice
from emoprobe.conversations.tools import described_tools
from emoprobe.models import source as models
from emoprobe.results.api_calls import ApiCalls
from emoprobe.results.layout import Layout
from emoprobe.steering.drawn import drawn_grid
from emoprobe.steering.grid import SteeringGrid
from server.pool.allowance import Allowance, judge_allowance, pair_allowance, steering_allowance
from server.pool.protocol import Caller, GenerateJob, Job, JudgeJob, OutcomesJob
from server.pool.served import JudgeModel, ServedModel

if TYPE_CHECKING:
    from server.pool.api_budget import ApiBudget


class ExperimentJobs(ServedModel):
    """State shared by the jobs of one experiment of a run, see `ServedModel`."""

    def __init__(self, config: Config, results: Path, directory: Path) -> None:
        super().__init__(config, results, directory)
        self.allowance = pair_allowance(config, self.layout)
        self._opening, self._describing = threading.Lock(), threading.Lock()
        self._judge_models: dict[str, JudgeModel] = {}

    @cached_property
    def _steering(self) -> SteeringGrid:
        return drawn_grid(self.config, self.layout, self.directory)

    @property
    def steering(self) -> SteeringGrid:
        """The steered trajectories; the data set is opened for it, once.

        Raises:
            DataError: the questions cannot be drawn.
        """
        with self._opening:
            return self._steering

    @cached_property
    def steering_allowance(self) -> Allowance:
        """Number of steered trajectories that may go without an answer."""
        return steering_allowance(self.config, self.layout, self.steering.trajectories)

    @cached_property
    def judge_allowance(self) -> Allowance:
        """Number of judgements that may go without a reply."""
        return judge_allowance(self.config, self.layout)

    @cached_property
    def api_budget(self) -> ApiBudget:
        """Calls of APIs by this experiment, for answers and judgements, over all of its runs."""
        # Here, as it brings httpx, which a plan does without.
        from server.pool.api_budget import ApiBudget

        workers = self.config.workers
        return ApiBudget(ApiCalls(self.layout.api_calls), workers.prices, workers.max_cost)

    async def tools(self) -> dict[str, Any]:
        """Return the fields of an agent's first request about its tools; empty for other conversations.

        Raises:
            ToolError: a function cannot be described.
        """
        if not self.config.conversation.tools:
            return {}
        if "_tools" not in self.__dict__:
            await asyncio.to_thread(lambda: self._tools)
        return {"tools": self._tools} | tool_choice(self.config)

    @cached_property
    def _tools(self) -> list[dict[str, Any]]:
        with self._describing:
            return described_tools(tuple(self.config.conversation.tools))

    def judge(self, label: str) -> JudgeGrader:
        """Return the settings of a judge.

        Raises:
            PlanError: the config has none of that label.
        """
        for settings in self.config.judges:
            if settings.outcome == label:
                return settings
        raise PlanError(f"graders has no judge {label!r}")

    def judge_model(self, settings: JudgeGrader) -> JudgeModel:
        """Return the model of a judge that the run serves."""
        if settings.outcome not in self._judge_models:
            self._judge_models[settings.outcome] = JudgeModel(self, settings)
        return self._judge_models[settings.outcome]

    def pair_index(self, variant: str, sample_index: int, draw: int) -> int:
        """The place of a pair among all pairs of the experiment, sample by sample: what round robin counts."""
        names = list(self.config.variants)
        return sample_index * len(names) + names.index(variant) + draw - 1


class PlanError(ValueError):
    """A plan that does not hold what it is asked for; the message names the file."""


class Run:
    """The experiments of one workflow run, each read when it is first asked for."""

    def __init__(self, caller: Caller) -> None:
        self._plan, self._results, self._directory = map(Path, (caller.plan, caller.results, caller.directory))
        self._experiments: dict[str, ExperimentJobs] = {}
        self.names = sorted(path.stem for path in self._plan.glob("*.json"))
        self.refused: dict[Job, str] = {}
        self.down: set[str] = set()
        """Experiments that no server is left for."""
        self.remaining: frozenset[str] | None = None
        """Kinds of jobs that are still to be done; None where the client has not said."""

    def experiment(self, name: str) -> ExperimentJobs:
        """One experiment of the plan.

        Raises:
            PlanError: the plan does not hold it.
        """
        if name not in self._experiments:
            path = self._plan / f"{name}.json"
            try:
                config = parse_config(json.loads(path.read_text(encoding="utf-8")), str(path))
            except (OSError, ValueError) as error:
                raise PlanError(f"{path} cannot be read ({error}); delete {self._plan} and run again") from None
            self._experiments[name] = ExperimentJobs(config, self._results, self._directory)
        return self._experiments[name]

    def experiments(self) -> list[ExperimentJobs]:
        """All experiments of the plan.

        Raises:
            PlanError: one cannot be read, or there is none.
        """
        if not self.names:
            raise PlanError(f"{self._plan} holds no experiment; delete it and run again")
        return [self.experiment(name) for name in self.names]

    def servers_needed(self) -> frozenset[str]:
        """Return the kinds of servers that the remaining jobs need, `vllm` and `nnsight`.

        Raises:
            PlanError: an experiment cannot be read.
        """
        if self.remaining is None:
            return frozenset(get_args(Backend))
        generating = {each.config.generation.backend for each in self.experiments()}
        by_generator = {GenerateJob.kind, OutcomesJob.kind}
        others: set[Backend] = {"nnsight"} if self.remaining - by_generator - {JudgeJob.kind} else set()
        if JudgeJob.kind in self.remaining and any(each.config.served_judges for each in self.experiments()):
            others.add("vllm")  # the connections to a judge behind an API end with the pool
        return frozenset(others | (generating if self.remaining & by_generator else set()))

    @property
    def logs(self) -> Path:
        """The folder for the logs of pool and servers: the experiment's, or the results' where there are more."""
        if len(self.names) == 1:
            return Layout.of(self.names[0], self._results).root / "logs"
        return self._results / "logs"


def address_path(configs: dict[str, Config], code: Path) -> Path:
    """The file that tells where the pool of some experiments listens.

    Runs share a pool only where host, scheduler job, code, models, transforms and all settings of the servers are the
    same. How many experiments need the same servers makes no difference.
    """
    key = [
        socket.gethostname(),
        os.environ.get("SLURM_JOB_ID"),
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        str(code),
        *_distinct_servers(configs.values()),
    ]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    return base / f"emoprobe-{os.getuid()}" / f"{digest}.address"


def _distinct_servers(configs: Iterable[Config]) -> list[str]:
    """Return the distinct server settings of the experiments, in alphabetical order."""
    identities: dict[str, str] = {}
    found = set()
    for config in configs:
        model = config.model.model_dump_json()
        if model not in identities:
            identities[model] = models.identity(config.model)
        # Another folder may have another model under the same relative path.
        source = Path(config.model.source).expanduser().resolve() if is_local(config.model.source) else ""
        entry: list[Any] = [
            [str(source), identities[model], config.model.dtype],
            # A module is imported once, so a pool that is kept alive would go on with the old source of a transform.
            [
                variants.identity(config, name)
                for name, variant in config.variants.items()
                if variant.transform is not None
            ],
            *([kinds.identity(config)] if config.conversation.functions else []),
            config.workers.model_dump(mode="json"),
            config.generation.engine.model_dump(mode="json"),
        ]
        found.add(json.dumps(entry))
    return sorted(found)
