"""Atomic files, locks and content-addressed artefacts: nothing here appears half-written."""
