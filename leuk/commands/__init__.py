"""One file per command: each composes the parts below and owns no logic."""
