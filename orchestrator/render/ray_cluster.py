"""A plan's cluster as the YAML that `ray up` takes: hosts reached over SSH, or machines of a cloud."""

from __future__ import annotations

from orchestrator.plan import Plan
from orchestrator.render import cloud, local, sections
from orchestrator.render.target import Target, check_target
from orchestrator.render.text import comment


def render_ray_cluster(plan: Plan, target: Target) -> str:
    """The whole file. Raises `ConfigError` for what the provider does not have."""
    check_target(plan, target)
    if target.provider == "local":
        machines, setup, start = local.machines(plan, target), local.setup(plan, target), local.start(plan, target)
    else:
        machines, setup, start = cloud.machines(plan, target), cloud.setup(plan, target), cloud.start()
    return "\n".join((_head(plan, target), machines, sections.files(target), setup, start))


def _head(plan: Plan, target: Target) -> str:
    where = {"local": "hosts reached over SSH", "aws": "machines of AWS", "gcp": "machines of Google Cloud"}
    what = f"{sections.gpus(plan)}{', emulated on CPUs' if target.rehearsal else ''}, {where[target.provider]}"
    spot = ", at spot prices" if target.spot else ""
    return comment(f"""
{plan.model.name} on {what}{spot}. Planned as {plan.parallelism.label()}.

Ray's token first, once:
  ray get-auth-token --generate && chmod 600 ~/.ray/auth_token
Then, in the project's folder, where file_mounts are found. The check names what is missing here:
  orchestrator cluster-check {target.path} && ray up {target.path}
  ray down {target.path}

{_edit(target)}

Written by: {target.made_by}
""")


def _edit(target: Target) -> str:
    if target.provider == "local":
        return (
            "To edit: the addresses, the SSH user and key, and the folder for models. Hosts need Linux, bash with a "
            "~/.bashrc, rsync, and SSH from here and from the head. They trust one another on a private network: "
            "Ray and NCCL open ports on it, and a firewall must keep everybody else out."
        )
    if target.provider == "aws":
        return (
            "To edit: the region, and whose SSH is let in. AWS credentials are taken from the environment, as boto3 "
            "does. A quota for these machines, or a capacity block, must be there already."
        )
    return (
        "To edit: the project, the zone. Google credentials are taken from the environment (gcloud auth "
        "application-default login). A quota for these machines must be there already."
    )
