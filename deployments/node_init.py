"""Ray Serve LLM's hook before an engine starts on its nodes."""

from __future__ import annotations

from ray.llm._internal.common.callbacks.base import CallbackBase


class NoSeparateDownload(CallbackBase):
    """Skip the task that Ray runs on every node before the engine to fetch from a cloud mirror.

    There is no mirror here: the engine's own workers read the folder or fetch the checkpoint. The task would load
    the whole engine library in one more process, one after the other, for nothing: a third of a small model's start.
    """

    async def on_before_node_init(self) -> None:
        self.ctx.run_init_node = False
