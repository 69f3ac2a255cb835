"""The classifiers, all under one contract."""
