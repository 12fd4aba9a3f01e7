"""The operator's side: plan a Mixture-of-Experts model onto a cluster, deploy it, watch it."""

__version__ = "0.1.0"
