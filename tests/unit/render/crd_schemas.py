"""KubeRay's schemas, made as strict as `kubectl apply --validate=strict` is about keys that they do not know."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

_FILE = Path(__file__).parent / "crds" / "ray.io-v1.json"


@lru_cache(maxsize=1)
def schemas() -> dict[str, Any]:
    """`$defs` by name: RayCluster, RayService, rayClusterSpec, podTemplate."""
    loaded: dict[str, Any] = _strict(json.loads(_FILE.read_text(encoding="utf-8"))["$defs"])
    # The API server checks `metadata` of every object itself.
    for kind in ("RayCluster", "RayService"):
        loaded[kind]["properties"]["metadata"] = {"type": "object"}
    loaded["podTemplate"]["properties"]["metadata"] = {"type": "object"}
    return loaded


def problems(document: object, schema: dict[str, Any]) -> list[str]:
    """What is wrong with a document, `path: message` for each."""
    validator = Draft202012Validator({**schema, "$defs": schemas()})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def _strict(schema: Any) -> Any:
    """A structural schema prunes what it does not know, silently; here that is an error."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    return strict
