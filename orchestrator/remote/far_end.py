"""The head's end of a line: runs commands there for somebody elsewhere, and never leaves one running alone.

Started by `remote/ssh.py` on the head; its messages are those of `remote/messages.py`. A command is interrupted as by
Ctrl-C, so that it undoes what it began, when its sender asks for that, hangs up, or falls silent. Its output goes
through here, so that a command whose sender is gone can go on writing while it undoes.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from orchestrator import __version__
from orchestrator.deploy.cluster import DASHBOARD_PORT, LOCAL_HOST
from orchestrator.deploy.front import running_front
from orchestrator.errors import ConfigError
from orchestrator.remote import source
from orchestrator.remote.messages import PROTOCOL, SILENCE_S, Channel, Word, pack_output, unpack_words
from orchestrator.render.node_setup import HOME
from orchestrator.store.home import home
from orchestrator.store.secrets import read_api_key

# How long a command whose sender is gone may take to undo what it began.
UNDO_S = 600.0
# Output that nobody takes off: a writer then waits, as at a full pipe.
_UNSENT_MESSAGES = 256
_LAST_OUTPUT_S = 2.0


class Outbox:
    """Messages on their way out. Once `abandoned`, nobody waits for what is not taken off any more."""

    def __init__(self, channel: Channel) -> None:
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue(_UNSENT_MESSAGES)
        self._channel = channel
        self.abandoned = threading.Event()
        threading.Thread(target=self._deliver, daemon=True).start()

    def put(self, **message: Any) -> None:
        while not self.abandoned.is_set():
            with contextlib.suppress(queue.Full):
                self._messages.put(message, timeout=0.5)
                return

    def close(self) -> None:
        """Return once everything is on its way, unless it is abandoned."""
        if not self.abandoned.is_set():
            self._messages.join()

    def _deliver(self) -> None:
        while True:
            self._channel.send(**self._messages.get())
            self._messages.task_done()


class FarEnd:
    """Answers one sender until it hangs up."""

    def __init__(self, channel: Channel, command: Sequence[str], silence_s: float = SILENCE_S) -> None:
        self._outbox = Outbox(channel)
        self._command, self._silence_s = command, silence_s
        self._inbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, args=(channel,), daemon=True).start()

    def serve(self) -> None:
        """Do what is asked, one thing after another."""
        while not self._outbox.abandoned.is_set() and (message := self._next()) is not None:
            match message.get("do"):
                case "hello":
                    self._outbox.put(**_introduction(message["files"], message["digest"]))
                case "way-in":
                    self._outbox.put(**_way_in())
                case "run":
                    self._run(unpack_words(message["words"]), message["environment"])
        self._outbox.close()

    def _listen(self, channel: Channel) -> None:
        while (message := channel.receive()) is not None:
            self._inbox.put(message)
        self._outbox.abandoned.set()
        self._inbox.put(None)

    def _next(self) -> dict[str, Any] | None:
        """The next message; None when the sender hung up or has been silent for too long."""
        try:
            message = self._inbox.get(timeout=self._silence_s)
        except queue.Empty:
            message = None
        if message is None:
            self._outbox.abandoned.set()
        return message

    def _run(self, words: Sequence[Word], environment: Mapping[str, str]) -> None:
        with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
            command = [*self._command, *_written(words, Path(folder))]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=_environment(environment), start_new_session=True,
            )  # fmt: skip
            pumps = [self._pump(process.stdout, "out"), self._pump(process.stderr, "err")]
            # What is in the inbox next is either a message or the news that the command has ended.
            threading.Thread(
                target=lambda: self._inbox.put({"do": "ended", "code": process.wait()}), daemon=True
            ).start()
            code = self._attend(process)
            for pump in pumps:  # something that the command left running may hold its output open
                pump.join(_LAST_OUTPUT_S)
        self._outbox.put(ended=code)

    def _attend(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the end of a command; its exit code, as a shell counts.

        It is interrupted once at most: a second time would interrupt what it does to undo.
        """
        interrupted = False
        while (message := self._next()) is not None:
            if message["do"] == "ended":
                code = int(message["code"])
                return code if code >= 0 else 128 - code
            if message["do"] == "interrupt" and not interrupted:
                _signal(process, signal.SIGINT)
                interrupted = True
        if not interrupted:
            _signal(process, signal.SIGINT)
        try:
            process.wait(UNDO_S)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
        return 128 + signal.SIGINT

    def _pump(self, stream: IO[bytes] | None, name: str) -> threading.Thread:
        def pump() -> None:
            while stream is not None and (output := os.read(stream.fileno(), 65536)):
                self._outbox.put(**{name: pack_output(output)})

        thread = threading.Thread(target=pump, daemon=True)
        thread.start()
        return thread


def _introduction(files: Sequence[str], digest: str) -> dict[str, Any]:
    same = source.digest(source.root(), files) == digest
    return {"protocol": PROTOCOL, "version": __version__, "same_source": same}


def _way_in() -> dict[str, Any]:
    """The front's address and the API key of this machine, as far as there are any."""
    front = running_front()
    try:
        key = read_api_key(home() / "api-key")
    except ConfigError:
        key = None
    if front is None:
        return {"front": None, "api_key": key}
    url = urlsplit(front.base_url)  # what it listens on may be no address to connect to
    return {"front": [url.hostname, url.port], "api_key": key}


def _written(words: Sequence[Word], folder: Path) -> list[str]:
    """The arguments, with each file that came along written into a folder of its own."""
    written = []
    for number, word in enumerate(words):
        if not isinstance(word, str):
            path = folder / str(number) / word.name
            path.parent.mkdir()
            path.write_bytes(word.content)
            word = str(path)
        written.append(word)
    return written


def _environment(further: Mapping[str, str]) -> dict[str, str]:
    """The Ray that the cluster file starts is meant, and no other, running or not."""
    ray = {"RAY_DASHBOARD_URL": f"http://{LOCAL_HOST}:{DASHBOARD_PORT}"}
    return {**os.environ, **ray, "PYTHONUNBUFFERED": "1", **further}


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To the command and what it runs, as a terminal does; what it started to outlive it has a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def main() -> None:
    """Serve on standard input and output."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the end of the line is told by reading
    with open(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as out:
        FarEnd(Channel(sys.stdin.buffer, out), [str(Path(HOME).expanduser() / ".venv/bin/orchestrator")]).serve()
        os._exit(0)  # a thread may wait for ever at an output that nobody takes off


if __name__ == "__main__":
    main()
