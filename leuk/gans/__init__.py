"""The GANs, their common base class and their layers."""
