"""What the manifests of one cluster call one another: objects, labels, ports."""

from __future__ import annotations

from dataclasses import dataclass

PUBLIC_PORT = 8000
CONTROL_PORT = 8001
DASHBOARD_PORT = 8265
GCS_PORT = 6379
# Where a node's agent says whether its Ray is well.
AGENT_PORT = 52365


@dataclass(frozen=True)
class Names:
    """The names that follow from the cluster's own."""

    cluster: str

    @property
    def front(self) -> str:
        return f"{self.cluster}-front"

    @property
    def ray_token(self) -> str:
        """Secret with `auth_token`."""
        return f"{self.cluster}-ray-token"

    @property
    def api_key(self) -> str:
        """Secret with `api-key`, which clients send."""
        return f"{self.cluster}-api-key"

    @property
    def hugging_face(self) -> str:
        """Secret with `token`, for gated models."""
        return f"{self.cluster}-hugging-face"

    @property
    def control_url(self) -> str:
        """Where replicas announce themselves to the front."""
        return f"http://{self.front}:{CONTROL_PORT}"

    @property
    def ray_labels(self) -> dict[str, str]:
        """Of the pods of the Ray cluster, whatever name KubeRay gives the cluster itself."""
        return {"orchestrator/cluster": self.cluster}

    @property
    def front_labels(self) -> dict[str, str]:
        return {"orchestrator/front": self.cluster}
