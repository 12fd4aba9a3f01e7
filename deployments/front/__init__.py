"""The front: HAProxy under our own configuration, and beside it the ingress that answers what no replica can."""
