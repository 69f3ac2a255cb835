"""What GANs and classifiers share while they are fitted: randomness, initial weights, a guard."""
