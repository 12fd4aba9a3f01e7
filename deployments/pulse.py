"""A vLLM plugin: each process of an engine tells its replica once a second how it is, over a connection of its own.

A thread of its own does it, so that a main thread that hangs in a collective is still heard, and what it hangs in;
a process that is stopped, or whose node is gone, falls silent; one that dies closes the connection.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import sys
import threading
import time
from typing import Any

import psutil

from deployments.node_check import check_node, free_shared_memory_bytes
from deployments.vitals import CORE, Beat
from deployments.worker_extension import node_name

# Where the replica listens, and what lets a caller in: host, port and secret, as JSON.
PULSE_ENV = "ORCHESTRATOR_PULSE"
PERIOD_S = 1.0


def install() -> None:
    """Start the pulse where an engine's core or rank begins its life; does nothing outside a replica, or twice."""
    if PULSE_ENV not in os.environ:
        return
    from vllm.v1.engine.core import EngineCoreProc
    from vllm.v1.executor.abstract import Executor
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    if hasattr(Executor, "_has_pulse"):
        return
    Executor._has_pulse = True
    core_step = Step()
    Executor.__init__ = _first(Executor.__init__, lambda _executor: _begin(CORE, core_step))
    EngineCoreProc._process_engine_step = core_step.timing(EngineCoreProc._process_engine_step)
    WorkerWrapperBase.init_device = _first(
        WorkerWrapperBase.init_device, lambda wrapper: _begin(wrapper.global_rank, Step())
    )


def _begin(rank: int, step: Step) -> None:
    """A core or a rank is about to join its group: its pulse begins, and its node is checked."""
    import vllm

    door = json.loads(os.environ[PULSE_ENV])
    start(rank, step)
    who = f"{'the core' if rank == CORE else f'rank {rank}'} on {node_name(door['node'])}"
    check_node(who, vllm.__version__, door["vllm"], free_shared_memory_bytes())


class Step:
    """How long the present step has taken; shared by the thread that steps and the one that tells."""

    def __init__(self) -> None:
        self._begun_s: float | None = None

    @property
    def seconds(self) -> float | None:
        begun_s = self._begun_s
        return None if begun_s is None else time.monotonic() - begun_s

    def timing(self, step: Any) -> Any:
        """`step`, with its time measured."""

        @functools.wraps(step)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._begun_s = time.monotonic()
            try:
                return step(*args, **kwargs)
            finally:
                self._begun_s = None

        return timed


def _first(method: Any, action: Any) -> Any:
    @functools.wraps(method)
    def acting(owner: Any, *args: Any, **kwargs: Any) -> Any:
        action(owner)
        return method(owner, *args, **kwargs)

    return acting


def start(rank: int, step: Step) -> None:
    """Keep telling, from a thread that ends with the process."""
    thread = threading.Thread(target=_keep_telling, args=(rank, step), daemon=True, name="pulse")
    thread.start()


def _keep_telling(rank: int, step: Step) -> None:
    door = json.loads(os.environ[PULSE_ENV])
    process = psutil.Process()
    # The core runs where the replica does, and is no process of Ray's yet.
    node = door["node"] if rank == CORE else node_name(door["node"])
    while True:
        try:
            with socket.create_connection((door["host"], door["port"]), timeout=5) as connection:
                connection.sendall(f"{door['secret']}\n".encode())
                while True:
                    connection.sendall(f"{_beat(rank, node, process, step).model_dump_json()}\n".encode())
                    time.sleep(PERIOD_S)
        except OSError:
            time.sleep(PERIOD_S)


def _beat(rank: int, node: str, process: psutil.Process, step: Step) -> Beat:
    with process.oneshot():
        times, memory = process.cpu_times(), process.memory_info()
        return Beat(
            rank=rank,
            node=node,
            pid=process.pid,
            cpu_s=times.user + times.system,
            memory_bytes=memory.rss,
            read_bytes=process.io_counters().read_chars,
            step_s=step.seconds,
            doing=doing(),
        )


def doing() -> str:
    """The innermost Python frame of the main thread: `all_reduce (distributed_c10d.py:2841)`."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return "(no Python frame)"
    file = os.path.basename(frame.f_code.co_filename)  # noqa: PTH119 - as text, which is all it is here
    return f"{frame.f_code.co_name} ({file}:{frame.f_lineno})"[:300]
