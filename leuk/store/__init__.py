"""Atomic files and folders, locks and content-addressed artifacts."""
