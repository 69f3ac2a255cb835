"""The two classes of C-NMC."""

from enum import IntEnum


class Label(IntEnum):
    """The two classes of C-NMC; leukemic is the positive one everywhere."""

    HEM = 0
    """Healthy."""
    ALL = 1
    """Acute lymphoblastic leukemia: positive."""

    @property
    def folder(self) -> str:
        """The name of the class in C-NMC's folders and file names."""
        return self.name.lower()


UNLABELED = -1
"""In place of a label: a cell whose class was not published."""
