"""Builders of the demo models: real MoE checkpoints that need no download hub."""
