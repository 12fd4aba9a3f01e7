"""Google Cloud's part of a cluster file: project, images, machines."""

from __future__ import annotations

from orchestrator.render import node_setup
from orchestrator.render.machines import Machine

MODEL_FOLDER = "/mnt/disks/local-ssd/moe-orchestrator"
CLIENTS: tuple[str, ...] = ("google-api-python-client==2.202.0",)
DISKS: tuple[str, ...] = (node_setup.GCP_LOCAL_SSDS,)

PROVIDER = """\
  type: gcp
  region: us-central1
  availability_zone: us-central1-a
  project_id: YOUR-PROJECT
  # Ray makes no firewall rule here. The `default` network lets SSH in from everywhere (default-allow-ssh) and
  # its own members reach one another: narrow the first to your addresses, keep the second.
"""


_TCP = """\
# NCCL goes over TCP on one network card between these machines; for the others see docs/clusters.md.
"""


def _node_config(name: str, scheduling: list[str], after: str = "") -> str:
    entry = f"scheduling:\n  - {{{', '.join(scheduling)}}}\n" if scheduling else ""
    return f"""\
machineType: {name}
{entry}disks:
  - boot: true
    autoDelete: true
    type: PERSISTENT
    initializeParams:
      diskSizeGb: 200
      # Google's own image with the NVIDIA driver. Newer ones:
      # gcloud compute images list --project deeplearning-platform-release --no-standard-images
      sourceImage: projects/deeplearning-platform-release/global/images/family/common-cu129-ubuntu-2204-nvidia-580
{after}"""


HEAD = _node_config("n2-standard-8", [])


def gpu_machine(machine: Machine, spot: bool, several: bool) -> str:
    """The `node_config` of a machine with GPUs."""
    scheduling = ["onHostMaintenance: TERMINATE"]
    scheduling += ["provisioningModel: SPOT", "instanceTerminationAction: DELETE"] if spot else []
    return _node_config(machine.name, scheduling, _TCP if several else "")
