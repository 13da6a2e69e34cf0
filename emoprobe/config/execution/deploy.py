"""Model servers on a machine that is rented, or merely elsewhere."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from emoprobe.config.names import check_variable
from emoprobe.config.section import Hidden, Section


class Deploy(Section):
    """Model servers on another machine: `make deploy` starts them there, and runs use them until `make undeploy`."""

    changes_results: ClassVar[bool] = False

    backend: Literal["ssh", "skypilot"] | None = Field(
        None, description="`ssh`: a machine that you can log in to; `skypilot`: one that SkyPilot rents; null: off."
    )
    host: Annotated[str | None, Hidden] = Field(
        None, description="The machine, as `ssh` takes it: `user@gpu1`, or an alias."
    )
    ssh_config: str | None = Field(None, description="Configuration file of `ssh` (its `-F`); null: your own.")
    folder: str = Field(
        "emoprobe-deployed", description="Folder on the machine for everything that is put there, below the home."
    )
    python: str | None = Field(
        None,
        description="An interpreter on the machine that has what `envs/` lists; null: an environment is installed "
        "in `folder`.",
    )
    environment: Annotated[list[str], Hidden] = Field(
        default_factory=list,
        description="Names of variables that are handed to the machine with their values, such as `HF_TOKEN`. Those "
        "that a push to `storage.url` needs are added.",
    )
    min_vram: int | None = Field(None, ge=1, description="Least memory of each GPU, GB (10⁹ bytes), as makers count.")
    max_price: float | None = Field(None, gt=0, description="Most that a rented machine may cost, US dollars an hour.")
    spot: bool = Field(False, description="Whether a rented machine may be taken away at any time, which is cheaper.")
    idle_minutes: float | None = Field(
        30.0, gt=0, description="Servers end themselves after so long without a request; null: never."
    )

    @field_validator("host")
    @classmethod
    def _host(cls, host: str | None) -> str | None:
        # `ssh` would read a name that begins with a dash as an option.
        if host is not None and not re.fullmatch(r"(?:[\w.][\w.-]*@)?[\w.:%\[\]][\w.:%\[\]-]*", host):
            raise ValueError(
                "is no name of a machine (`user@gpu1`, or an alias); ports, passwords and keys go to a configuration "
                "file of ssh"
            )
        return host

    @field_validator("environment")
    @classmethod
    def _environment(cls, names: list[str]) -> list[str]:
        return [check_variable(name) for name in names]

    @field_validator("folder")
    @classmethod
    def _folder(cls, folder: str) -> str:
        if not re.fullmatch(r"[\w./-]+", folder) or ".." in folder.split("/") or not folder.strip("./"):
            raise ValueError(f"{folder!r} is no path of letters, digits and . _ - / that leads to a folder of its own")
        return folder.rstrip("/")

    @model_validator(mode="after")
    def _complete(self) -> Deploy:
        if self.backend == "ssh" and self.host is None:
            raise ValueError("backend ssh needs a host")
        if self.backend == "skypilot":
            missing = [name for name in ("min_vram", "max_price", "idle_minutes") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"backend skypilot needs {' and '.join(missing)}: it rents, and rent adds up")
            if self.host is not None:
                raise ValueError("backend skypilot finds its own host; remove the key")
        return self
