"""Execution of runs: data, GAN, training, test, explanations, record."""
