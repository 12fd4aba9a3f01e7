"""The code map cannot drift: docs/structure.md names every module, and no module that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAP = (ROOT / "docs/structure.md").read_text()
PACKAGES = ("orchestrator", "deployments")


def _modules(package: str) -> set[str]:
    found = (path.relative_to(ROOT / package) for path in (ROOT / package).rglob("*.py"))
    plain = {str(path) for path in found if path.name not in ("__init__.py", "__main__.py")}
    return plain | {str(path.relative_to(ROOT / package)) for path in (ROOT / package).glob("*/__main__.py")}


def _section(package: str) -> str:
    return MAP.partition(f"## {package}/")[2].partition("\n## ")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_names_every_module(package: str) -> None:
    missing = {module for module in _modules(package) if f"`{module}`" not in _section(package)}
    assert not missing


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_names_no_module_that_is_gone(package: str) -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", _section(package)))
    assert named <= _modules(package)
