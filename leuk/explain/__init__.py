"""Explanations of a fitted classifier."""
