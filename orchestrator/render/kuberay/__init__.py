"""A plan's cluster as manifests for KubeRay, Ray's operator for Kubernetes."""

from orchestrator.render.kuberay.manifests import KubeTarget, render_kuberay

__all__ = ["KubeTarget", "render_kuberay"]
