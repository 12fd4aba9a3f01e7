"""CPUs that Ray counts as GPUs."""

from __future__ import annotations

from vllm.platforms.cpu import CpuPlatform


class EmulatedGpuPlatform(CpuPlatform):
    """vLLM's CPU platform under Ray's name for GPUs: the Ray executor refuses the CPU platform only for want of one."""

    ray_device_key = "GPU"
    # As on CUDA: Ray leaves the choice of the device to the engine.
    ray_noset_device_env_vars = ("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES",)
