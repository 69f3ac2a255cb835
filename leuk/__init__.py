"""leuk: does adding GAN-made cells help a leukemia classifier, and why did it decide so?"""

__version__ = "0.1.0"
