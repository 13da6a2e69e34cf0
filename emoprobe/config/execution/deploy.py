"""Model servers on a remote or rented machine."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from emoprobe.config.section import Hidden, Section, check_variable


class Deploy(Section):
    """Model servers on a remote machine. `make deploy` starts them; runs use them until `make undeploy`."""

    changes_results: ClassVar[bool] = False

    backend: Literal["ssh", "skypilot"] | None = Field(
        None,
        description="`ssh`: a machine that you can log in to; `skypilot`: a machine that SkyPilot rents; null: "
        "no deployment.",
    )
    host: Annotated[str | None, Hidden] = Field(
        None, description="Host name as `ssh` accepts it: `user@gpu1`, or an alias."
    )
    ssh_config: str | None = Field(
        None, description="Configuration file of `ssh` (option `-F`); null: the default file."
    )
    folder: str = Field(
        "emoprobe-deployed",
        description="Folder on the machine, below the home directory, for everything that is copied there.",
    )
    python: str | None = Field(
        None,
        description="Python interpreter on the machine, with the packages that `envs/` lists; null: install an "
        "environment in `folder`.",
    )
    environment: Annotated[list[str], Hidden] = Field(
        default_factory=list,
        description="Names of environment variables to copy to the machine with their values, such as "
        "`HF_TOKEN`. Those "
        "that a push to `storage.url` needs are added.",
    )
    min_vram: int | None = Field(None, ge=1, description="Minimum memory of each GPU in GB (10⁹ bytes).")
    max_price: float | None = Field(None, gt=0, description="Maximum price of a rented machine in US dollars an hour.")
    spot: bool = Field(
        False, description="Whether to rent a spot instance, which is cheaper and may be reclaimed at any time."
    )
    idle_minutes: float | None = Field(
        30.0, gt=0, description="Minutes without a request after which servers stop themselves; null: never."
    )

    @field_validator("host")
    @classmethod
    def _host(cls, host: str | None) -> str | None:
        # `ssh` would read a name that begins with a dash as an option.
        if host is not None and not re.fullmatch(r"(?:[\w.][\w.-]*@)?[\w.:%\[\]][\w.:%\[\]-]*", host):
            raise ValueError(
                "is no host name (`user@gpu1`, or an alias); ports, passwords and keys go to a configuration "
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
            raise ValueError(f"{folder!r} must be a path of letters, digits and . _ - / below the home directory")
        return folder.rstrip("/")

    @model_validator(mode="after")
    def _complete(self) -> Deploy:
        if self.backend == "ssh" and self.host is None:
            raise ValueError("backend ssh needs a host")
        if self.backend == "skypilot":
            missing = [name for name in ("min_vram", "max_price", "idle_minutes") if getattr(self, name) is None]
            if missing:
                raise ValueError(
                    f"backend skypilot needs {' and '.join(missing)}: rented machines cost money as long as they run"
                )
            if self.host is not None:
                raise ValueError("backend skypilot finds its own host; remove the key")
        return self
