"""What is said over a line arrives as it was said, and nothing else is taken for it."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.remote.messages import (
    Channel,
    SentFile,
    pack_output,
    pack_words,
    unpack_output,
    unpack_words,
)


def sent(**message: object) -> bytes:
    out = io.BytesIO()
    Channel(io.BytesIO(), out).send(**message)
    return out.getvalue()


def received(stream: bytes) -> list[dict[str, Any]]:
    channel = Channel(io.BytesIO(stream), io.BytesIO())
    messages = []
    while (message := channel.receive()) is not None:
        messages.append(message)
    return messages


@given(st.binary(), st.lists(st.text()))
def test_output_and_words_arrive_byte_for_byte(output: bytes, words: list[str]) -> None:
    stream = sent(out=pack_output(output)) + sent(words=pack_words(words))
    first, second = received(stream)
    assert unpack_output(first["out"]) == output
    assert unpack_words(second["words"]) == words


def test_a_message_is_one_line() -> None:
    assert sent(out="a\nb").count(b"\n") == 1


def test_what_else_comes_is_passed_over() -> None:
    stream = b"Welcome!\n\x1eorchestrator nonsense\n{}\nno newline" + sent(ended=0) + b"[]\n" + sent(ended=1)
    assert received(stream) == [{"ended": 0}, {"ended": 1}]


def test_a_file_keeps_its_content_but_not_its_folder() -> None:
    for name, kept in (("a b.yaml", "a b.yaml"), ("../../etc/passwd", "passwd"), ("..", "file"), ("", "file")):
        arrived = SentFile.unpack(SentFile(name, b"\x00\xff").pack())
        assert (arrived.name, arrived.content) == (kept, b"\x00\xff")


def test_what_cannot_be_delivered_is_dropped() -> None:
    closed = io.BytesIO()
    closed.close()
    Channel(io.BytesIO(), closed).send(out="nobody listens")
