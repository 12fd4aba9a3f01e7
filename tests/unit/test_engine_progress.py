"""An engine's failure told as its own first cause, in one line."""

from __future__ import annotations

from itertools import pairwise

import pytest

from deployments.engine_progress import cause_of


def raised_from(*errors: Exception) -> Exception:
    """The last of `errors`, each raised from the one before it."""
    for deeper, error in pairwise(errors):
        error.__cause__ = deeper
    return errors[-1]


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (raised_from(ValueError("no memory"), RuntimeError("engine died"), RuntimeError("actor died")), "no memory"),
        (ValueError("two\n  lines"), "two lines"),
        (ValueError(), "ValueError"),
        (
            ValueError(
                "1 error\n  bad dtype [type=x]\n    For further information visit https://errors.pydantic.dev/x"
            ),
            "1 error bad dtype [type=x]",
        ),
        (ValueError("x" * 5000), "x" * 1000),
    ],
)
def test_the_first_cause_is_told_in_one_line(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause
