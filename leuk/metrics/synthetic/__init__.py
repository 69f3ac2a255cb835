"""Measures of synthetic images."""
