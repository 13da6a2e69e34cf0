"""Errors of a device that computes, by what can be done afterwards."""

from __future__ import annotations

import torch


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that a device had too little memory, after which it can be used as before."""
    texts = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def is_sticky(error: Exception) -> bool:
    """Return whether an error of a device makes all further work of this process on it fail."""
    texts = ("device-side assert", "illegal memory access", "CUDA error", "CUDNN_STATUS_EXECUTION_FAILED")
    sticky = isinstance(error, torch.AcceleratorError) or any(text in str(error) for text in texts)
    return sticky and not is_out_of_memory(error)
