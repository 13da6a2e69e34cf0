"""The pool among programs of this machine that do not know its token."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, cast

import pytest

from server.pool import pool as module
from server.pool.address import PoolAddress
from server.pool.fleets import Fleets
from server.pool.pool import Pool
from tests.conftest import PATIENCE


class NoFleets:
    """No servers at all."""

    def __iter__(self) -> Any:
        return iter(())

    def forget_failed(self) -> None:
        pass

    async def stop(self) -> None:
        pass


async def end_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await reader.read()


@pytest.mark.parametrize("first", [b"", b"half a line", b"wrong token\n", b"x" * (1 << 20)])
def test_strangers_are_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes) -> None:
    """They are heard for a while, a few at a time, and whoever knows the token is always heard."""
    monkeypatch.setattr(module, "GREETING_SECONDS", 1.0)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(module, "MAX_STRANGERS", 4)

    async def run() -> None:
        pool = Pool(tmp_path / "a.address", cast(Fleets, NoFleets()))
        serving = asyncio.create_task(pool.serve(os.getpid()))
        while (address := PoolAddress.read(tmp_path / "a.address")) is None:
            await asyncio.sleep(0.01)
        crowd = [await asyncio.open_connection("127.0.0.1", address.port) for _ in range(20)]
        for _, writer in crowd:
            writer.write(first)
        await asyncio.sleep(0.3)
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        writer.write(f"{address.token}\tstatus\n".encode())
        assert b'"pid"' in await end_of(reader)
        for stranger, _ in crowd:
            try:
                assert await end_of(stranger) == b""
            except ConnectionError:
                pass
        for _, each in [*crowd, (reader, writer)]:
            each.close()
        pool.close()
        await serving

    asyncio.run(run())
