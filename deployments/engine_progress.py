"""A vLLM plugin: the engine tells how far it is, from inside its own processes.

vLLM loads it (entry point group `vllm.general_plugins`) in the engine's core and in every worker. Marks are the
beginnings of phases; a phase ends where the next begins, so that they add up to the wall time.

    weights    a worker begins to load
    warm-up    the executor profiles a forward pass (this is where the model is compiled), or warms up
    KV cache   profiling is over, blocks are being allocated
    ready      the core is complete
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from deployments import pulse
from deployments.front_link import Report, tell


def install() -> None:
    """Wrap the engine's own steps; does nothing outside a replica, and nothing twice."""
    if Report.from_environment() is None:
        return
    # First, so that what the pulse finds wrong with a node is told as any other cause.
    pulse.install()
    from vllm.v1.engine.core import EngineCore
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    if getattr(EngineCore, "_reports_progress", False):
        return
    EngineCore._reports_progress = True
    EngineCore._initialize_kv_caches = _telling(EngineCore._initialize_kv_caches, after=_kv_cache)
    for executor in _with_subclasses(Executor):
        _wrap(executor, "determine_available_memory", before="warm-up", after=lambda *_: tell("KV cache"))
        _wrap(executor, "compile_or_warm_up_model", before="warm-up")
        _wrap(executor, "__init__")
    for step in ("init_worker", "init_device"):
        _wrap(WorkerWrapperBase, step)
    WorkerWrapperBase.load_model = _telling(
        lambda wrapper, *args, **kwargs: wrapper.worker.load_model(*args, **kwargs), before="weights"
    )


def _kv_cache(core: Any, _result: Any) -> None:
    cache = core.vllm_config.cache_config
    tell("ready", kv_cache_tokens=getattr(cache, "kv_cache_size_tokens", None), num_blocks=cache.num_gpu_blocks)


def _with_subclasses(cls: type) -> list[type]:
    children: list[type] = cls.__subclasses__()
    return [cls, *(found for child in children for found in _with_subclasses(child))]


def _wrap(cls: type, method: str, **marks: Any) -> None:
    # Only where the class itself defines it: a wrapped parent already speaks for a child that inherits.
    if method in vars(cls):
        setattr(cls, method, _telling(vars(cls)[method], **marks))


def _telling(
    step: Callable[..., Any], before: str | None = None, after: Callable[[Any, Any], None] | None = None
) -> Callable[..., Any]:
    @functools.wraps(step)
    def told(owner: Any, *args: Any, **kwargs: Any) -> Any:
        if before is not None:
            tell(before)
        try:
            result = step(owner, *args, **kwargs)
        except Exception as error:
            tell("failed", cause=cause_of(error))
            raise
        if after is not None:
            after(owner, result)
        return result

    return told


def cause_of(error: BaseException) -> str:
    """The first cause of a chain of exceptions, in one line."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    text = " ".join(str(error).split()).partition(" For further information visit")[0]  # pydantic's link
    return text[:1000] if text else type(error).__name__
