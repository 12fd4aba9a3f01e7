"""The shell commands that make a host ready: what is right already is left alone.

Ray's launcher runs each of them over SSH, in a shell of its own. What a later command needs is therefore
written down on the host: `node-env.sh` holds the environment of everything that Ray starts there.
"""

from __future__ import annotations

import textwrap

from orchestrator.units import format_bytes

RAY_VERSION = "2.60.0"
HOME = "~/moe-orchestrator"
# Nothing is sent there: it only names the way out (RFC 5737 keeps the address for documentation).
ANYWHERE = "192.0.2.1"

PYTHON = """\
# Python with its venv module, 3.10 to 3.13.
python3 -c 'import sys, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' ||
  { echo "this host needs python3 3.10 to 3.13 with venv (Ubuntu: sudo apt-get install python3-venv)" >&2; exit 1; }
"""

PYTHON_FROM_APT = """\
# Python's venv module, which fresh Ubuntu images lack.
python3 -c 'import ensurepip' 2>/dev/null ||
  { sudo apt-get update -q && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3-venv; }
"""

GPU_DRIVER = """\
# The NVIDIA driver; the CUDA libraries come with the engine.
nvidia-smi -L || { echo "this host has no NVIDIA driver that works: install it first" >&2; exit 1; }
"""

DEEP_GEMM = """\
# DeepSeek's sparse attention runs on DeepGEMM kernels; vLLM's CUDA wheel brings them along.
~/moe-orchestrator/.venv/bin/python -c 'import deep_gemm' 2>/dev/null ||
  ~/moe-orchestrator/.venv/bin/python -c 'import vllm.third_party.deep_gemm' ||
  { echo "DeepGEMM is missing or does not load: install it into ~/moe-orchestrator/.venv" >&2; exit 1; }
"""

ON_PATH = """\
# `ray` and `orchestrator` for shells on this host, `ray exec` and `ray down` included; with Ray's token, or the
# cluster does not answer them.
grep -qs moe-orchestrator/.venv ~/.bashrc ||
  echo 'export RAY_AUTH_MODE=token PATH="$HOME/moe-orchestrator/.venv/bin:$PATH"' >> ~/.bashrc
"""

GCP_LOCAL_SSDS = """\
# The machine's local SSDs as one disk. They are empty again whenever the machine has been stopped.
findmnt -n /mnt/disks/local-ssd || {
  ssds=(/dev/disk/by-id/google-local-nvme-ssd-*) && ls "${ssds[@]}" &&
  { [ -e /dev/md0 ] || sudo mdadm --create /dev/md0 --run --level=0 --raid-devices=${#ssds[@]} "${ssds[@]}"; } &&
  { sudo blkid /dev/md0 || sudo mkfs.ext4 -q /dev/md0; } &&
  sudo mkdir -p /mnt/disks/local-ssd && sudo mount /dev/md0 /mnt/disks/local-ssd
}
"""

REHEARSAL_INSTALL = """\
# Ray, vLLM's CPU build and this project, at pinned versions.
cd ~/moe-orchestrator && scripts/env cpu
"""


def rehearsal_model(name: str) -> str:
    """The small model that stands in for the real one, on every host."""
    return f"""\
# The small model that stands in for the real one: every rank reads it from its own host's disk.
cd ~/moe-orchestrator && .venv/bin/python -m orchestrator build {name}
"""


def install(engine_version: str, further: tuple[str, ...] = ()) -> str:
    """Ray, vLLM and this project in an environment of their own; done again only if what is wanted changes."""
    packages = " ".join((f'"ray[serve]=={RAY_VERSION}"', f"vllm=={engine_version}", *further, '-e ".[gpu]"'))
    return f"""\
# Ray, vLLM and this project, at pinned versions; skipped while neither they nor pyproject.toml change.
cd ~/moe-orchestrator || exit 1
packages=({packages})
wanted=$(echo "${{packages[*]}}" | cat - pyproject.toml | cksum)
[ "$(cat .venv/.installed 2>/dev/null)" = "$wanted" ] || {{
  {{ [ -x .venv/bin/python ] || python3 -m venv .venv; }} &&
  .venv/bin/python -m pip install --disable-pip-version-check --quiet "${{packages[@]}}" &&
  echo "$wanted" > .venv/.installed
}}
"""


def model_disk(folder: str, checkpoint_bytes: int) -> str:
    """The folder of the model caches, on a disk that can hold the checkpoint."""
    return f"""\
# The disk for model caches. The checkpoint alone takes {format_bytes(checkpoint_bytes)}.
[ -w {folder} ] || sudo install -d -o "$(id -un)" {folder} || exit 1
[ "$(df -B1 --output=size {folder} | tail -n 1)" -ge {checkpoint_bytes} ] ||
  {{ echo "the disk of {folder} is smaller than the checkpoint: name a larger one in this file" >&2; exit 1; }}
"""


def node_env(cache: str, peer: str, further: dict[str, str]) -> str:
    """`node-env.sh`: the environment of Ray and of the engines it starts, the host's own address included."""
    exports = "\n".join(f"export {name}={value}" for name, value in further.items())
    return f"""\
# The environment of everything that Ray starts here.
mkdir -p ~/moe-orchestrator ~/.config/vllm
# vLLM hands its driver's NCCL_* to all ranks; the interface, though, is each host's own.
echo '["NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"]' > ~/.config/vllm/ray_non_carry_over_env_vars.json
cat > ~/moe-orchestrator/node-env.sh <<'END'
# Written by `ray up`; change the cluster file instead.
[ -s ~/.ray/auth_token ] || {{ echo "no Ray token in ~/.ray/auth_token" >&2; return 1; }}
# The address and the interface by which this host reaches the others. To fix the interface, replace this part.
peer=$(getent ahostsv4 "${{RAY_HEAD_IP:-{peer}}}" | awk 'NR == 1 {{print $1}}')
route=$(ip -4 -o route get "$peer" | sed -n 's/.* dev \\([^ ]*\\) .*src \\([^ ]*\\).*/\\1 \\2/p')
[ -n "$route" ] || {{ echo "no IPv4 route to ${{peer:-the other hosts}}" >&2; return 1; }}
export NCCL_SOCKET_IFNAME=${{route% *}} GLOO_SOCKET_IFNAME=${{route% *}} VLLM_HOST_IP=${{route#* }}
export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
export HF_HOME={cache}/huggingface VLLM_CACHE_ROOT={cache}/vllm
export HF_TOKEN_PATH=~/.cache/huggingface/token
{exports}
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
# Memory for RDMA is locked; a host that does not allow it falls back to copying.
ulimit -l unlimited 2>/dev/null || true
END
""".replace("\n\nulimit", "\nulimit")


def repeated(start: str, tries: int) -> str:
    """`ray start`, tried again when it fails: a busy host overruns Ray's limits of 15 and 30 s.

    For hosts reached over SSH, where Ray's autoscaler never comes back to a worker that has failed once.
    """
    if tries == 1:
        return start
    body = textwrap.indent(start.rstrip(), "  ")
    return f"""\
# A busy host overruns Ray's own time limits, and Ray never comes back to a worker that has failed once.
for _ in $(seq {tries}); do
{body} && exit 0
  ray stop --force
done
exit 1
"""
