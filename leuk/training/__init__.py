"""Training code shared by GANs and classifiers: random streams, initial weights, loss guard."""
