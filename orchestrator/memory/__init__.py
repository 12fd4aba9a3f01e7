"""Bytes per rank, by pure arithmetic: weights, KV cache, activations, overhead."""
