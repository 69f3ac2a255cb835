"""Errors that the user can fix; messages name the location, the problem and the remedy.

Any other exception is a defect of leuk and keeps its traceback.
"""


class LeukError(Exception):
    """Base of all errors that are shown without a traceback."""


class ConfigError(LeukError):
    """An override or a config value that cannot be used."""


class ListMeantError(ConfigError):
    """A single value for a key that takes a list of such values.

    Args:
        key: dotted key.
        value: value of the key.
    """

    def __init__(self, key: str, value: object) -> None:
        super().__init__(f"{key}={value}: a list is needed; write {key}=[{value}]")
        self.key = key


class DataError(LeukError):
    """Images or tables that cannot be used."""


class StoreError(LeukError):
    """A folder that cannot be written or has unexpected content."""


class TrainingError(LeukError):
    """A failure of training that other settings can avoid."""
