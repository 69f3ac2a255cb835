"""Metrics, intervals and comparisons of predictions, and baselines."""
