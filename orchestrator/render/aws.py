"""AWS's part of a cluster file: region, images, machines."""

from __future__ import annotations

from orchestrator.render.machines import Machine

MODEL_FOLDER = "/opt/dlami/nvme/moe-orchestrator"
CLIENTS: tuple[str, ...] = ("boto3==1.44.5",)
# The image mounts the local disks itself.
DISKS: tuple[str, ...] = ()

PROVIDER = """\
  type: aws
  region: us-east-1
  # One zone, so that machines are near one another; one that has these machines.
  availability_zone: us-east-1a
  cache_stopped_nodes: false
  # Ray makes a security group that lets in SSH, and whatever its own members send. To let in SSH from fewer
  # addresses, make a group yourself and name it in every node_config as SecurityGroupIds: [sg-…].
"""


_EFA = """\
# NCCL goes over TCP between these machines. For EFA, {cards} cards on each, see docs/clusters.md.
"""


def _node_config(name: str, before_image: str = "", after: str = "") -> str:
    return f"""\
InstanceType: {name}
{before_image}# AWS's own image with the NVIDIA driver, which also mounts the local disks at /opt/dlami/nvme.
ImageId: resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id
BlockDeviceMappings:
  - DeviceName: /dev/sda1
    Ebs: {{VolumeSize: 200, VolumeType: gp3, Encrypted: true}}
# The address book of the machine answers to its own processes only, by session.
MetadataOptions: {{HttpTokens: required, HttpPutResponseHopLimit: 1}}
{after}"""


HEAD = _node_config("m7i.2xlarge")


def gpu_machine(machine: Machine, spot: bool, several: bool) -> str:
    """The `node_config` of a machine with GPUs."""
    market = "InstanceMarketOptions: {MarketType: spot}\n" if spot else ""
    efa = _EFA.format(cards=machine.efa_cards) if several and machine.efa_cards else ""
    return _node_config(machine.name, market, efa)
