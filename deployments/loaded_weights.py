"""A vLLM plugin: how many bytes of weights a rank loaded, before its kernels padded, repacked or copied them.

That is the figure a plan gives, to the byte; what kernels make of weights differs from platform to platform.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from deployments.front_link import Report

_ATTRIBUTE = "_orchestrator_loaded_bytes"


def install() -> None:
    """Note every model's bytes as its loader is about to process them; does nothing outside a replica, or twice."""
    if Report.from_environment() is None:
        return
    from vllm.model_executor.model_loader import base_loader

    process = base_loader.process_weights_after_loading
    if hasattr(process, "__wrapped__"):
        return

    def noting(model: Any, *args: Any, **kwargs: Any) -> Any:
        setattr(model, _ATTRIBUTE, stored_bytes(model.parameters()))
        return process(model, *args, **kwargs)

    noting.__wrapped__ = process  # type: ignore[attr-defined]
    base_loader.process_weights_after_loading = noting


def loaded_bytes(model: Any) -> int:
    """Bytes of the weights as they were loaded; as they are now, where a loader of another kind was at work."""
    noted: int | None = getattr(model, _ATTRIBUTE, None)
    return stored_bytes(model.parameters()) if noted is None else noted


def stored_bytes(tensors: Iterable[Any]) -> int:
    """The memory behind tensors, each piece once, however many views there are of it."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
