"""Sizes and times are parsed and printed alike everywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import ConfigError
from orchestrator.units import GIB, format_bytes, format_seconds, parse_bytes


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("80GB", 80 * 10**9), ("1 GiB", GIB), ("1.5GiB", GIB * 3 // 2), ("512", 512), ("2k", 2000)],
)
def test_sizes_are_decimal_or_binary_as_written(text: str, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "80 parsecs", "1e9", "nan"])
def test_a_bad_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a size"):
        parse_bytes(text)


@given(st.integers(min_value=0, max_value=2**50))
def test_a_printed_size_parses_back_within_a_twentieth(size_bytes: int) -> None:
    assert parse_bytes(format_bytes(size_bytes)) == pytest.approx(size_bytes, rel=0.05, abs=1)


def test_seconds_grow_into_minutes_and_hours() -> None:
    assert [format_seconds(s) for s in (0.417, 8.31, 68, 7500)] == [
        "0.42 s", "8.3 s", "1 min 08 s", "2 h 05 min",
    ]  # fmt: skip
