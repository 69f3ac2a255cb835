"""Commands of leuk, one module each, composed of functions from the other packages."""
