"""Copies of activations to the CPU: asynchronous and into pinned memory from a GPU, none on a CPU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch


class HostCopies:
    """Copies from the GPUs of a model, each on a stream beside the one that computes.

    The next pass runs while these copies do. On a CPU there are no streams, and nothing is copied.

    Args:
        streams: the stream of each GPU that copies run on.
    """

    def __init__(self, streams: Mapping[torch.device, torch.cuda.Stream]) -> None:
        self._streams = streams

    @classmethod
    def of(cls, devices: Iterable[torch.device]) -> HostCopies:
        """Return the copies from the GPUs among some devices."""
        make: Any = torch.cuda.Stream  # has no types
        return cls({each: make(each) for each in set(devices) if each.type == "cuda"})

    def stack(self, values: Sequence[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        """Stack tensors of one shape along a new first dimension on the CPU, in another type.

        Values from a GPU may be read once the events of `started` have occurred.

        Args:
            values: the tensors, which may lie on several GPUs.
            dtype: the type of the result.
        """
        if not self._streams:
            return torch.stack(list(values)).to(dtype)
        host = torch.empty((len(values), *values[0].shape), dtype=dtype, pin_memory=True)
        begin = 0
        for device, group in groupby(values, key=lambda value: value.device):
            stacked = torch.stack(list(group)).to(dtype)
            stream = self._streams[device]
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                host[begin : begin + len(stacked)].copy_(stacked, non_blocking=True)
            stacked.record_stream(stream)  # its memory is not reused before it is copied
            begin += len(stacked)
        return host

    def started(self) -> list[torch.cuda.Event]:
        """Return the events that occur when all copies so far are done, one a GPU."""
        return [stream.record_event() for stream in self._streams.values()]
