"""The section `deploy`: what it refuses, and that it changes no result."""

from __future__ import annotations

from typing import Any

import pytest

from emoprobe.config.errors import ConfigError
from emoprobe.config.files import parse_config
from emoprobe.workflow.triggers import Triggers

RENTED = {"backend": "skypilot", "min_vram": 24, "max_price": 1.0}


@pytest.mark.parametrize(
    ("deploy", "said"),
    [
        ({"backend": "ssh"}, "needs a host"),
        ({"backend": "ssh", "host": "-oProxyCommand=x"}, "no host name"),
        ({"backend": "ssh", "host": "gpu; rm -rf /"}, "no host name"),
        ({"backend": "ssh", "host": "gpu", "folder": "/"}, "below the home directory"),
        ({"backend": "ssh", "host": "gpu", "folder": "../x"}, "below the home directory"),
        ({"backend": "ssh", "host": "gpu", "folder": "a b"}, "below the home directory"),
        ({"backend": "ssh", "host": "gpu", "environment": ["HF_TOKEN=abc"]}, "no name of an environment variable"),
        ({"backend": "skypilot", "min_vram": 24}, "needs max_price"),
        ({**RENTED, "idle_minutes": None}, "needs idle_minutes"),
        ({**RENTED, "host": "gpu"}, "remove the key"),
        ({"backend": "cloud"}, "backend"),
        ({"backend": "ssh", "host": "gpu", "pasword": "x"}, "unknown key"),
    ],
)
def test_mistakes_are_told(deploy: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"deploy": deploy})
    assert said in str(caught.value)


def test_it_is_off_by_default_and_changes_no_result() -> None:
    plain = parse_config({})
    assert plain.deploy.backend is None
    assert Triggers.of(parse_config({"deploy": RENTED})) == Triggers.of(plain)


def test_two_keys_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="both api_key_env and api_key_file"):
        parse_config({"workers": {"api_key_env": "KEY", "api_key_file": "/key"}})
