"""leuk: do GAN-generated images help a leukemia classifier, and what drives its decisions?"""

__version__ = "0.1.0"
