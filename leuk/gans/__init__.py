"""The GANs and what they share."""
