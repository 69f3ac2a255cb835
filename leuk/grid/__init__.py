"""Identity, record and state of the runs of a grid, without Lightning and Hydra."""
