"""This machine's end of a line to a head: a connection over which commands run there as if they ran here."""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from orchestrator import __version__
from orchestrator.errors import ApplyFailed, ClusterUnavailable
from orchestrator.remote import source, ssh
from orchestrator.remote.cluster_file import Head
from orchestrator.remote.messages import BEAT_S, PROTOCOL, Channel, Word, pack_words, unpack_output

# How long ssh may take to end by itself: after the other end did, and after this one hung up.
_HANG_UP_S = 5.0
_GOODBYE_S = 0.5


@dataclass(frozen=True)
class FarFront:
    """What a head tells of its front: its address as seen from there, if it runs, and the API key, if there is one."""

    address: tuple[str, int] | None
    api_key: str | None


class Line:
    """An open line. Each method raises `ClusterUnavailable` when it breaks off."""

    def __init__(self, head: Head, process: subprocess.Popen[bytes], complaints: Callable[[], str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._head, self._process, self._complaints = head, process, complaints
        self._channel = Channel(process.stdout, process.stdin)
        self._wishes: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._speaker = threading.Thread(target=self._speak, daemon=True)

    def meet(self) -> bool:
        """Open the conversation; whether the source at the other end is this one."""
        folder = source.root()
        files = source.source_files(folder)
        self._channel.send(do="hello", files=files, digest=source.digest(folder, files))
        told = self._receive()
        if told.get("protocol") != PROTOCOL:
            theirs = f"version {told.get('version', 'unknown')} (here: {__version__})"
            raise ClusterUnavailable(ssh.other_version(self._head, theirs))
        self._speaker.start()
        return bool(told["same_source"])

    def front(self) -> FarFront:
        """The way in, as the head has it now."""
        self._channel.send(do="way-in")
        told = self._receive()
        address = told["front"]
        return FarFront((str(address[0]), int(address[1])) if address else None, told["api_key"])

    def run(
        self,
        words: Sequence[Word],
        environment: Mapping[str, str],
        out: Callable[[bytes], object],
        err: Callable[[bytes], object],
    ) -> int:
        """Run `orchestrator WORDS` there; its exit code.

        The first Ctrl-C (or SIGTERM) interrupts the command there, whose last words and exit code still come; a second
        one hangs up. Raises `ApplyFailed` then, and `ClusterUnavailable` when the line breaks off: in both cases the
        command there undoes what it began.
        """
        self._channel.send(do="run", words=pack_words(words), environment=dict(environment))
        with self._interruptions():
            while True:
                message = self._receive(running=True)
                if "ended" in message:
                    return int(message["ended"])
                if "out" in message:
                    out(unpack_output(message["out"]))
                if "err" in message:
                    err(unpack_output(message["err"]))

    @contextlib.contextmanager
    def _interruptions(self) -> Iterator[None]:
        asked: list[int] = []

        def interrupt(number: int, _frame: FrameType | None) -> None:
            asked.append(number)
            if len(asked) > 1:
                raise ApplyFailed(
                    f"left; the command is interrupted on {self._head.login} and undoes there what it began; "
                    "look with: orchestrator status"
                )
            self._wishes.put("interrupt")

        earlier = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _speak(self) -> None:
        """Pass on wishes as they come; between them, say that somebody is there."""
        while True:
            try:
                wish = self._wishes.get(timeout=BEAT_S)
            except queue.Empty:
                wish = "beat"
            if wish is None:
                return
            self._channel.send(do=wish)

    def _receive(self, running: bool = False) -> dict[str, Any]:
        message = self._channel.receive()
        if message is not None:
            return message
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_HANG_UP_S)
        reason = ssh.failure(self._head, self._process.returncode, self._complaints())
        if running:
            raise ClusterUnavailable(
                f"lost the line to {self._head.login}; the command there is interrupted and undoes what it began "
                f"(orchestrator status tells); {reason}"
            )
        raise reason

    def hang_up(self) -> None:
        """End the connection; a command that still runs there is interrupted."""
        self._wishes.put(None)
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(_GOODBYE_S)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()


@contextlib.contextmanager
def open_line(head: Head, known_hosts: Path) -> Iterator[Line]:
    """A line to `head`, closed at the end. Raises `ClusterUnavailable` when there is no way to it."""
    with tempfile.TemporaryFile() as complaints:

        def told() -> str:
            complaints.seek(0)
            return complaints.read().decode(errors="replace")

        try:
            # In a session of its own: Ctrl-C here must not cut the line over which it is passed on.
            process = subprocess.Popen(
                ssh.far_end_command(head, known_hosts), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=complaints, start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError:
            raise ClusterUnavailable("no `ssh` is installed here; install OpenSSH's client") from None
        line = Line(head, process, told)
        try:
            yield line
        finally:
            line.hang_up()
