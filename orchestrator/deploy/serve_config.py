"""Serve's configuration as a whole. Its REST PUT replaces every application, so one is put in, or taken out, of what
is there. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import ConfigError


@dataclass(frozen=True)
class ServeProxy:
    """Serve's own HTTP proxy as the way in: where it listens, and the ingress application behind it."""

    host: str
    port: int
    ingress: Mapping[str, Any]


def current_applications(details: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The applications as they were last deployed by configuration, by name (none that are on their way out)."""
    found = {name: app.get("deployed_app_config") for name, app in details.get("applications", {}).items()}
    deleting = {name for name, app in details.get("applications", {}).items() if app.get("status") == "DELETING"}
    return {name: config for name, config in found.items() if config and name not in deleting}


def with_application(
    details: Mapping[str, Any], application: Mapping[str, Any], proxy: ServeProxy | None = None
) -> dict[str, Any]:
    """The configuration that adds or replaces one application and leaves the others as they are.

    With `proxy`, Serve's own proxy and its ingress are part of it. Raises `ConfigError` where a running Serve has none.
    """
    applications = {**current_applications(details), application["name"]: dict(application)}
    if proxy is None:
        return _config(details, applications)
    running = details.get("proxy_location")
    if running == "Disabled":
        raise ConfigError("Serve runs here without its proxy, which --front serve needs; first: orchestrator down")
    config = _config(details, {**applications, proxy.ingress["name"]: dict(proxy.ingress)})
    if running is None:
        config |= {"proxy_location": "HeadOnly", "http_options": {"host": proxy.host, "port": proxy.port}}
    return config


def without_application(details: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The configuration that takes one application away and leaves the others as they are."""
    return _config(details, {key: app for key, app in current_applications(details).items() if key != name})


def _config(details: Mapping[str, Any], applications: Mapping[str, Any]) -> dict[str, Any]:
    # Serve's proxies stay off: no request goes through them. Where Serve runs already, its own options are kept,
    # since it cannot change them while it runs.
    config: dict[str, Any] = {
        "proxy_location": details.get("proxy_location") or "Disabled",
        "applications": [applications[name] for name in sorted(applications)],
    }
    for kept in ("http_options", "target_capacity"):
        if details.get(kept) is not None:
            config[kept] = details[kept]
    return config


def comparable(application: Mapping[str, Any] | None) -> dict[str, Any]:
    """The part of an application's configuration that deploying again could change, under the names people use."""
    if application is None:
        return {}
    args = application["args"]
    config = args["llm_config"]
    return {
        "model": config["model_loading_config"]["model_source"],
        "aliases": args["aliases"],
        "replicas": config["deployment_config"]["num_replicas"],
        "engine": config["engine_kwargs"],
        "env": config["runtime_env"]["env_vars"],
        "access": args["service"]["access"],
        "placement": {**config["placement_group_config"], "selectors": args.get("selectors")},
        "layout": _layout(args.get("plan")),
        "serve": {key: value for key, value in config["deployment_config"].items() if key != "num_replicas"},
        "control_url": args["control_url"],
    }


def _layout(plan: Mapping[str, Any] | None) -> Any:
    """Which rank sits where: what of a plan makes ranks start anew when it changes."""
    return plan and [(rank["replica"], rank["rank"], rank["node"], rank["gpu_index"]) for rank in plan["ranks"]]


def failure(message: str) -> str:
    """The cause in a message of Serve, which holds a whole traceback: its last line that is not a frame."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    frames = ("File ", "Traceback", "^", "~", "ray::", "During", "The above", "For further information visit")
    causes = [line for line in lines if not line.startswith(frames)]
    return causes[-1][:500] if causes else "(no reason given)"
