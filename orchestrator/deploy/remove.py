"""Taking an application away, and waiting until its last process is gone."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.deploy.clock import Clock
from orchestrator.deploy.ray_api import RayApi
from orchestrator.deploy.serve_config import without_application
from orchestrator.errors import ApplyFailed
from orchestrator.store.home import locked

POLL_S = 0.5
REMOVAL_TIMEOUT_S = 360.0


def remove(api: RayApi, name: str, forget: Callable[[str], None], clock: Clock = Clock()) -> bool:
    """Take an application out of Serve and let the front `forget` it; whether it was there.

    Raises `ApplyFailed` if it does not end.
    """
    with locked("serve"):
        details = api.serve_details()
        if name not in details["applications"]:
            return False
        api.put_applications(without_application(details, name))
    forget(name)
    wait_until_gone(api, name, clock)
    forget(name)  # a last heartbeat may have brought it back
    return True


def wait_until_gone(api: RayApi, name: str, clock: Clock) -> None:
    """Return once Serve no longer knows the application: then its processes have ended."""
    deadline_s = clock.monotonic_s() + REMOVAL_TIMEOUT_S
    while name in api.serve_details()["applications"]:
        if clock.monotonic_s() > deadline_s:
            raise ApplyFailed(f"{name} is still stopping after {REMOVAL_TIMEOUT_S:.0f} s; see: orchestrator status")
        clock.sleep(POLL_S)
