# The image of the Kubernetes manifests (orchestrator cluster-config --provider kuberay): Ray, vLLM, this project.
#   docker build -t registry.example.com/moe-orchestrator:0.1.0 .
# Ray's own image for LLMs, which pins vLLM 0.29.0 in Ray 2.60.0 and has the kernels that DeepSeek needs.
ARG BASE=rayproject/ray-llm:2.60.0-py312-cu130
FROM ${BASE}

COPY --chown=ray:users pyproject.toml README.md /home/ray/moe-orchestrator/
COPY --chown=ray:users orchestrator /home/ray/moe-orchestrator/orchestrator
COPY --chown=ray:users deployments /home/ray/moe-orchestrator/deployments
RUN pip install --no-cache-dir "/home/ray/moe-orchestrator[gpu]"

# A base with other versions ends here, not in a cluster.
RUN python -c "from importlib.metadata import version as v; got = v('ray'), v('vllm'); \
assert got == ('2.60.0', '0.29.0'), got; import deployments.front.haproxy, orchestrator"
