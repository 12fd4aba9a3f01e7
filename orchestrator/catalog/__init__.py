"""Facts with sources: models, GPUs, engine rules; data, not code."""
