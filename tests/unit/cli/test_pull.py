"""`pull` refuses in one line what does not go together, before anything is asked of anybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.runner import Runner


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("smol-moe",), "built on the spot, not fetched: orchestrator build smol-moe"),
        (("org/m", "--nodes", "--to", "x"), "every node fills its own cache"),
        (("org/m", "--address", "local"), "only --nodes pulls on"),
        (("kimi-k3",), "did you mean"),
        (("my-model",), "together with --from"),
        (("org/m", "--from", "s3://b/m", "--revision", "v1"), "write it into the source"),
        (("org/m", "--from", "https://me:pw@host/m"), "leave them to the store's own settings"),
        (("org/m", "--revision", "a b"), "must be a commit hash, a branch or a tag"),
    ],
)
def test_what_cannot_be_pulled_is_one_line(words: tuple[str, ...], why: str, run: Runner) -> None:
    code, out, err = run("pull", *words)
    assert (code, out) == (1, "")
    assert why in err
    assert "pw" not in err


def test_a_check_of_what_is_not_here_says_how_to_fetch_it(run: Runner, tmp_path: Path) -> None:
    code, _, err = run("pull", "kimi-k2", "--check-only", "--to", tmp_path)
    assert code == 1
    assert f"moonshotai/Kimi-K2-Instruct is not whole in {tmp_path}" in err
