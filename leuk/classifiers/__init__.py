"""The classifiers and their common base class."""
