"""Seeded random numbers for weights: each tensor draws from its own stream, named after it.

So the values of a tensor do not depend on which others are built, nor in which order.
"""

from __future__ import annotations

import zlib
from typing import Any


def normal(name: str, shape: tuple[int, ...], *, seed: int, std: float) -> Any:
    """float32 values of `shape` with mean 0 and standard deviation `std`."""
    import numpy as np

    stream = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return stream.standard_normal(shape, dtype=np.float32) * np.float32(std)


def preference(num_experts: int, skew: float) -> list[float]:
    """What is added to each expert's router logit: `skew` for the first, evenly falling to 0 for the last."""
    return [skew * (num_experts - 1 - expert) / (num_experts - 1) for expert in range(num_experts)]
