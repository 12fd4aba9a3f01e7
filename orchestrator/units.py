"""Sizes and times for people: parsed and printed here, and nowhere else.

Inside the program sizes are integers in bytes and times are floats in seconds.
"""

from __future__ import annotations

import re

from orchestrator.errors import ConfigError

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4

_FACTORS = {
    "": 1, "b": 1,
    "k": 1000, "kb": 1000, "kib": KIB,
    "m": 1000**2, "mb": 1000**2, "mib": MIB,
    "g": 1000**3, "gb": 1000**3, "gib": GIB,
    "t": 1000**4, "tb": 1000**4, "tib": TIB,
}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


def format_bytes(size_bytes: float) -> str:
    """`79.6 GiB`, `512 MiB`, `17 B`: three significant figures or so, binary units."""
    sign, size = ("-", -size_bytes) if size_bytes < 0 else ("", float(size_bytes))
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size >= factor:
            value = size / factor
            return f"{sign}{value:.0f} {unit}" if value >= 100 else f"{sign}{value:.1f} {unit}"
    return f"{sign}{size:.0f} B"


def parse_bytes(text: str) -> int:
    """Bytes from `80GB` (decimal), `79.6 GiB` (binary) or a bare number.

    Raises `ConfigError` on anything else, negative sizes included.
    """
    match = _SIZE.fullmatch(text)
    factor = _FACTORS.get(match.group(2).lower()) if match else None
    if match is None or factor is None:
        raise ConfigError(f"{text!r} is not a size; write for example 80GB, 79.6GiB or 1073741824")
    return int(float(match.group(1)) * factor)


def format_seconds(seconds: float) -> str:
    """`0.42 s`, `8.3 s`, `1 min 08 s`, `2 h 05 min`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
