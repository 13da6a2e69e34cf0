"""Run by the interpreter of an environment with vLLM for CUDA: parse command lines that come as JSON on standard input.

It prints what vLLM read in each. That takes no GPU: the parser ends where the engine would begin. Only which platform
it is on vLLM cannot tell without one, so it is told.
"""

import json
import sys

import torch
import vllm
import vllm.platforms
from vllm.platforms.interface import UnspecifiedPlatform


class Cuda(UnspecifiedPlatform):  # type: ignore[misc]
    """vLLM's own class for it loads the driver, which is not there without a GPU."""

    device_type = "cuda"


vllm.platforms.current_platform = Cuda()

from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: E402
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402

found = []
for line in json.load(sys.stdin):
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(line)
    validate_parsed_serve_args(arguments)
    engine = AsyncEngineArgs.from_cli_args(arguments)
    found.append(
        {
            "model": engine.model,
            "name": engine.served_model_name,
            "dtype": str(engine.dtype),
            "port": arguments.port,
            "host": arguments.host,
            "max_num_seqs": engine.max_num_seqs,
            "max_model_len": engine.max_model_len,
            "gpu_memory": engine.gpu_memory_utilization,
            "tensor_parallel": engine.tensor_parallel_size,
            "eager": engine.enforce_eager,
        }
    )
print(json.dumps({"vllm": vllm.__version__, "cuda": torch.version.cuda, "read": found}))
