"""Errors that are the user's to mend: what was wrong, where, and what to do.

Anything else that is raised is a defect of leuk and keeps its traceback.
"""


class LeukError(Exception):
    """Base of every error whose message alone is enough for the user."""


class ConfigError(LeukError):
    """An override or a config value that cannot be used."""


class ListMeantError(ConfigError):
    """One value where a list is needed, and a list of this value would do.

    Args:
        key: dotted.
        value: its value.
    """

    def __init__(self, key: str, value: object) -> None:
        super().__init__(f"{key}={value}: it takes a list; write {key}=[{value}]")
        self.key = key


class DataError(LeukError):
    """RunId images or tables that cannot be used."""


class StoreError(LeukError):
    """A folder that cannot be written, or holds something unexpected."""


class TrainingError(LeukError):
    """Fitting that went wrong in a way a setting can mend."""
