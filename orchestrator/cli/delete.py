"""`delete` and `down`: take one model away, or everything that was started here."""

from __future__ import annotations

import typer

from orchestrator.cli.output import AddressOption, JsonOption, ProgressView, out, print_json
from orchestrator.deploy import front as fronts
from orchestrator.deploy import local_ray, session
from orchestrator.deploy.render import INGRESS_NAME
from orchestrator.errors import ApplyFailed, ClusterUnavailable, UnknownModel

DELETE_HELP = """Take a deployed model away: answers already begun are finished, then its processes end."""
DOWN_HELP = """Stop everything that was started here: every model, the front, and the Ray that `deploy` started.

A Ray that was already running is left alone, and so are its other applications.
"""


def delete(
    name: str = typer.Argument(..., help="The name it is served under."),
    address: str = AddressOption,
    as_json: bool = JsonOption,
) -> None:
    view = ProgressView()
    view.phase("stopping")
    try:
        gone = session.delete(session.connected(address), fronts.running_front(), name)
    finally:
        view.close()
    if not gone:
        raise UnknownModel(f"no model {name!r} is deployed; see: orchestrator status")
    if as_json:
        print_json({"name": name, "action": "deleted"})
    else:
        out.print(f"{name}: deleted", highlight=False)


def down(as_json: bool = JsonOption) -> None:
    view = ProgressView()
    view.phase("stopping")
    try:
        models = _delete_all(view)
        stopped = {"front": fronts.stop_front(), "ray": local_ray.stop()}
    finally:
        view.close()
    if as_json:
        print_json({"models": models, **stopped})
        return
    parts = [*models, *(what for what, ended in stopped.items() if ended)]
    out.print(f"stopped: {', '.join(parts)}" if parts else "nothing was running", highlight=False)


def _delete_all(view: ProgressView) -> list[str]:
    """Delete the models this front knows; with Ray or the front gone there is nothing left to delete."""
    deleted: list[str] = []
    try:
        api, front = session.connected(None), session.the_front()
        if front.kind == "serve":
            session.delete(api, front, INGRESS_NAME)
        for row in fronts.FrontControl(front.control_url).deployments():
            view.say(f"deleting {row['name']}")
            if session.delete(api, front, row["name"]):
                deleted.append(row["name"])
    except ClusterUnavailable:
        pass
    except ApplyFailed as error:  # what was started here is stopped all the same
        view.say(f"a model could not be deleted first: {error}")
    return deleted
