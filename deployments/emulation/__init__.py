"""A rehearsal: Ray's GPU path on CPUs. One environment variable turns it on, in every process of an engine.

vLLM's Ray executor, its placement group and its ranks are the very ones that run on GPUs; what differs is the
platform under them (`platform.py`) and, with expert parallelism, a kernel that needs a mend (`expert_parallel.py`).
"""

from __future__ import annotations

import os

SWITCH = "ORCHESTRATOR_EMULATE"


def is_on() -> bool:
    """Whether this process rehearses."""
    return os.environ.get(SWITCH) == "1"


def platform() -> str | None:
    """vLLM's platform plugin (entry point group `vllm.platform_plugins`): our platform, or None for the usual one."""
    return "deployments.emulation.platform.EmulatedGpuPlatform" if is_on() else None


def install() -> None:
    """vLLM's general plugin: mends what the CPU's kernels do wrongly under expert parallelism."""
    if is_on():
        from deployments.emulation.expert_parallel import mend

        mend()
