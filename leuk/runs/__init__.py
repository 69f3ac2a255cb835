"""The life of one cell of the grid: data, GAN, fit, test, explain, record."""
