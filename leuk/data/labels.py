"""Classes of C-NMC."""

from enum import IntEnum


class Label(IntEnum):
    """Classes of C-NMC; leukemic is the positive class."""

    HEM = 0
    """Healthy."""
    ALL = 1
    """Acute lymphoblastic leukemia: positive."""

    @property
    def folder(self) -> str:
        """Name of the class in C-NMC's folders and file names."""
        return self.name.lower()


UNLABELED = -1
"""Label of images whose class is not published."""
