"""Explanations of a trained classifier."""
