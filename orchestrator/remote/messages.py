"""What the two ends of a line say to one another: one JSON object a line, behind a mark.

From here: hello, way-in, run, interrupt, beat. From the head: the answers, a running command's output, its end.
Arguments, files and keys travel so, and never as arguments of a process, which every user of a machine can read.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import IO, Any

PROTOCOL = 1
# A line that says nothing for so long has lost its other end: beats may be late on a busy machine.
BEAT_S = 5.0
SILENCE_S = 30.0
# What a login shell prints by itself has no such mark, and is passed over.
_MARK = b"\x1eorchestrator "


class Channel:
    """Messages both ways over two binary streams. What can no longer be delivered is dropped: reading tells the end."""

    def __init__(self, reader: IO[bytes], writer: IO[bytes]) -> None:
        self._reader, self._writer = reader, writer
        self._lock = threading.Lock()

    def send(self, **message: Any) -> None:
        line = memoryview(_MARK + json.dumps(message).encode() + b"\n")
        with self._lock, contextlib.suppress(OSError, ValueError):
            while line:
                line = line[self._writer.write(line) :]
            self._writer.flush()

    def receive(self) -> dict[str, Any] | None:
        """The next message, or None at the end of the line."""
        while line := self._reader.readline():
            message = _parse(line)
            if message is not None:
                return message
        return None


def _parse(line: bytes) -> dict[str, Any] | None:
    _, mark, text = line.partition(_MARK)
    try:
        message = json.loads(text) if mark else None
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


def pack_output(output: bytes) -> str:
    """Output of a command, of which nothing is known, not even that it is text."""
    return output.decode("latin-1")


def unpack_output(text: str) -> bytes:
    return text.encode("latin-1")


@dataclass(frozen=True)
class SentFile:
    """An argument that names a file here, sent with the file's content."""

    name: str
    content: bytes

    def pack(self) -> dict[str, str]:
        return {"name": self.name, "content": base64.b64encode(self.content).decode()}

    @classmethod
    def unpack(cls, packed: dict[str, str]) -> SentFile:
        """The name is reduced to its last part: a sender never chooses the folder."""
        name = PurePath(packed["name"]).name
        return cls("file" if name in ("", "..") else name, base64.b64decode(packed["content"]))


Word = str | SentFile


def pack_words(words: Sequence[Word]) -> list[str | dict[str, str]]:
    """The arguments of a command as JSON has them."""
    return [word if isinstance(word, str) else word.pack() for word in words]


def unpack_words(packed: Iterable[str | dict[str, str]]) -> list[Word]:
    return [word if isinstance(word, str) else SentFile.unpack(word) for word in packed]
