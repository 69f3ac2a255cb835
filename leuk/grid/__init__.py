"""What a cell of the grid is, and the record it leaves: no Lightning, no Hydra."""
