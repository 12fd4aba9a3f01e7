"""A command for a cluster elsewhere: handed on to its head, or run here through the way in to its front."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from orchestrator.cli.cluster_command import WHERE, ClusterCommand
from orchestrator.cli.output import err
from orchestrator.deploy import cluster as clusters
from orchestrator.deploy import local_ray
from orchestrator.errors import ConfigError
from orchestrator.remote import ray_up, which
from orchestrator.remote.cluster_file import ClusterFile
from orchestrator.remote.forward import Remote, Streams, WayIn
from orchestrator.remote.messages import SentFile, Word
from orchestrator.store.home import read_record

MAX_SENT_BYTES = 64 * 1024 * 1024


def invoke(command: ClusterCommand, ctx: Any, here: Callable[[Any], Any]) -> Any:
    """Run a command on the cluster it means: `here`, or on the head of one elsewhere."""
    given = command.given(ctx)
    file = _elsewhere(command, given)
    if file is None:
        result = here(ctx)
        if given.get("address") == which.HERE and command.name != "down":
            which.forget()
        return result
    head = ray_up.find_head(file)
    _say(f"cluster: {head}")
    remote = Remote(head)
    if command.name == "chat":  # a conversation runs here, through the tunnel
        ctx.obj = remote.way_in()
        return here(ctx)
    words = [*str(command.name).split(), *_forwarded(command, ctx, given)]
    raise typer.Exit(_run(remote, words, ctx.params))


def _elsewhere(command: ClusterCommand, given: Mapping[str, Any]) -> ClusterFile | None:
    """The file of the cluster elsewhere that is meant, if any."""
    address = given.get("address")
    if address not in (None, which.HERE) and not command.takes_address:
        raise ConfigError(f"--address {address}: {command.name} takes only `{which.HERE}`, or --cluster FILE")
    cluster = given.get("cluster")
    return which.choose(
        cluster=Path(cluster) if cluster is not None else None,
        address=address,
        environ=os.environ,
        last_used=which.last_used(),
        brought_up=lambda: ray_up.clusters_up(which.CLUSTER_CONFIGS),
        here_since_s=_here_since_s,
        say=_say,
    )


def _forwarded(command: ClusterCommand, ctx: Any, given: Mapping[str, Any]) -> list[Word]:
    """The command line for the head: options by their long names, files with their content, then the rest."""
    options: list[Word] = []
    for param in command.params:
        if param.name in given and param.name not in WHERE and param.param_type_name == "option":
            options += _as_words(param, given[str(param.name)], ctx.params[param.name])
    positional = [
        word
        for param in command.params
        if param.name in given and param.param_type_name == "argument"
        for word in _listed(given[str(param.name)])
    ]
    return [*options, "--", *positional, *ctx.args]


def _say(line: str) -> None:
    err.print(line, highlight=False, markup=False)


def _here_since_s() -> float | None:
    """When the Ray that runs here began, in seconds since 1970: one that others started counts as the newest."""
    found = clusters.find_cluster(None)
    if found is None:
        return None
    record = read_record(local_ray.RECORD) or {}
    return float(record.get("started") or 0) if found.ours else math.inf


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _as_words(param: Any, written: Any, read: Any) -> list[Word]:
    """An option as it is written again: a switch by its name, what is read as a path with the file's content."""
    if param.is_flag:
        names = param.opts if written else param.secondary_opts
        return [max(names, key=len)] if names else []
    name = max(param.opts, key=len)
    is_file = any(isinstance(value, Path) for value in _listed(read))
    return [word for one in _listed(written) for word in (name, _read(Path(one)) if is_file else str(one))]


def _read(path: Path) -> SentFile:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(content) > MAX_SENT_BYTES:
        raise ConfigError(f"{path}: {len(content)} bytes is too much to send; the limit is {MAX_SENT_BYTES}")
    return SentFile(path.name, content)


def _run(remote: Remote, words: Sequence[Word], params: Mapping[str, Any]) -> int:
    streams = Streams(_write_to(sys.stdout), _write_to(sys.stderr), _say)
    environment = _display()
    try:
        if words[0] == "deploy":
            return remote.deploy(words, environment, streams, (str(params["host"]), int(params["port"])))
        if words[0] == "down":
            return remote.down(words, environment, streams)
        return remote.ask(words, environment, streams)
    finally:
        err.show_cursor(True)  # a line that broke may have left it hidden


def _display() -> dict[str, str]:
    """The environment that makes the command there show what it would show here: how wide, and whether it may move."""
    display = {"COLUMNS": str(shutil.get_terminal_size().columns)}
    if sys.stdout.isatty() and sys.stderr.isatty():
        display |= {"FORCE_COLOR": "1", "TERM": os.environ.get("TERM", "")}
    if "NO_COLOR" in os.environ:
        display["NO_COLOR"] = os.environ["NO_COLOR"]
    return display


def _write_to(stream: Any) -> Any:
    def write(output: bytes) -> None:
        stream.buffer.write(output)
        stream.buffer.flush()

    return write


def way_in_of(context: typer.Context) -> WayIn | None:
    """The way in to a cluster elsewhere that this command means, if it means one."""
    return context.obj if isinstance(context.obj, WayIn) else None
