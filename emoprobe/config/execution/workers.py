"""The model servers."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from emoprobe.config.execution.slurm import SlurmShape
from emoprobe.config.section import Hidden, Section, check_url, check_variable


class Price(Section):
    """Price of a model's tokens, in any currency for one million of them."""

    changes_results: ClassVar[bool] = False

    input: float = Field(ge=0, description="For a million tokens of prompts.")
    output: float = Field(ge=0, description="For a million tokens of completions.")

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the cost of a request."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


class Workers(Section):
    """The model servers. Nothing here changes a result, so no change here makes anything again."""

    changes_results: ClassVar[bool] = False

    count: int = Field(1, ge=1, le=1024, description="Servers to start, on disjoint cores or GPUs.")
    slurm: list[SlurmShape] = Field(
        default_factory=list, description="SLURM jobs that hold the servers; then none is started on this machine."
    )
    queue_timeout: float | None = Field(
        None, gt=0, description="Seconds that a server may wait in SLURM's queue; null: as long as it takes."
    )
    endpoints: Annotated[list[str], Hidden] = Field(
        default_factory=list,
        description="Base URLs of servers that somebody else runs (`http://host:8000/v1`); then none is started.",
    )
    capture_endpoints: Annotated[list[str], Hidden] = Field(
        default_factory=list, description="The same for NNsight servers, which capture activations."
    )
    prices: dict[str, Price] = Field(
        default_factory=dict,
        description="With `backend: api` or judges, the price of each model by its name, for a million tokens: "
        "`{gpt-x: {input: 0.5, output: 2}}`.",
    )
    max_cost: float | None = Field(
        None,
        gt=0,
        description="With `generation.backend: api` or judges, most that one experiment may cost over all its runs, in "
        "the currency of `prices`; a call that may exceed it is not made. null: no limit.",
    )
    model_name: str | None = Field(None, description="What `endpoints` call the model; null: its source.")
    requests: int = Field(64, ge=1, le=4096, description="Requests in flight at one server.")
    timeout: float = Field(600.0, gt=0, description="Seconds that one attempt at a request may take.")
    batch_tokens: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="Token budget of one forward pass of the capture server; on a CPU captures take 1536 at most. "
        "`auto`: 4096, or what the memory of the GPU allows where the server has it to itself.",
    )
    memory_gib: float = Field(4.0, gt=0, description="Bound on captured activations that wait for the disk, GiB.")
    attempts: int = Field(3, ge=1, le=10, description="Tries of one request, each on the next live server.")
    restarts: int = Field(2, ge=0, le=100, description="Restarts of a server that died, each.")
    start_timeout: float = Field(900.0, gt=0, description="Seconds that a server may take to become healthy.")
    hang_timeout: float = Field(
        60.0, gt=0, description="Seconds of failed health checks after which a server counts as hanging."
    )
    keep_alive: float = Field(0.0, ge=0, description="Seconds that servers stay up after the last workflow ended.")
    port: int = Field(0, ge=0, le=65535, description="First port to try; 0 takes any free one.")
    kv_cache_gib: int = Field(4, ge=1, description="Memory for the KV cache of a server on a CPU, GiB.")
    gpu_sharing: Literal["auto", "together", "turns"] = Field(
        "auto",
        description="How vLLM and the NNsight server share the GPUs of a machine. `together`: both at once; `turns`: "
        "vLLM until its work is done, then the NNsight server; `auto`: together where both fit, by the size of the "
        "weights.",
    )
    gpu_memory: Literal["auto"] | Annotated[float, Field(gt=0, lt=1)] = Field(
        "auto",
        description="Share of a GPU's memory for vLLM; `auto`: what the NNsight server leaves of 0.9, or 0.9 where it "
        "has the GPU to itself.",
    )
    api_key_env: Annotated[str | None, Hidden] = Field(
        None, description="Environment variable that holds the API key of `endpoints`; the key itself never goes here."
    )
    api_key_file: Annotated[str | None, Hidden] = Field(
        None, description="The same as a file that its user alone can read, instead of a variable."
    )
    capture_files: Literal["shared", "fetch", "push"] | None = Field(
        None,
        description="How activations come here from NNsight servers that run elsewhere. `shared`: they write to a file "
        "system of this machine; `fetch`: to a disk of their own, from which each folder is fetched; `push`: they push "
        "it to `storage.url`, from where it is taken. null: `shared` with `capture_endpoints`; from servers that are "
        "deployed `push` where `storage.url` is set and no `file://`, else `fetch`.",
    )
    hardware: dict[str, str] = Field(
        default_factory=dict, description="What `endpoints` and `capture_endpoints` run on, by URL; results tell it."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Of the servers and the pool.")

    @field_validator("endpoints", "capture_endpoints")
    @classmethod
    def _endpoints(cls, endpoints: list[str]) -> list[str]:
        checked = [check_url(url) for url in endpoints]
        if len(set(checked)) != len(checked):
            raise ValueError("names a server twice")
        return checked

    @field_validator("hardware")
    @classmethod
    def _hardware(cls, hardware: dict[str, str]) -> dict[str, str]:
        for url in hardware:
            check_url(url)
        return hardware

    @field_validator("api_key_env")
    @classmethod
    def _api_key_env(cls, name: str | None) -> str | None:
        return None if name is None else check_variable(name)

    @model_validator(mode="after")
    def _one_key(self) -> Workers:
        if self.api_key_env is not None and self.api_key_file is not None:
            raise ValueError("has both api_key_env and api_key_file; keep one")
        return self

    def endpoints_of(self, kind: str) -> list[str]:
        """The servers of a kind that somebody else runs: `vllm`, `api` or `nnsight`."""
        return self.capture_endpoints if kind == "nnsight" else self.endpoints

    @property
    def captures_elsewhere(self) -> bool:
        """Whether the NNsight servers share no file system with this machine."""
        return self.capture_files in ("fetch", "push")

    @property
    def started(self) -> int:
        """Number of servers of each kind that are started, here or in SLURM jobs, if no endpoints replace them."""
        return sum(shape.count for shape in self.slurm) or self.count
