"""From a model and a cluster to a plan: enumerate, refuse with reasons, place, rank."""
