"""Metrics and baselines, from plain tensors: no Lightning, no Hydra."""
