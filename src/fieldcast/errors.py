"""What a user can get wrong, and the exit code the command line gives for it."""


class FieldcastError(Exception):
    """A fault that a user can mend; its text says what came, what is allowed and what to do."""

    exit_code = 1


class ConfigError(FieldcastError, ValueError):
    """A setting, option or name that does not fit."""

    exit_code = 2


class MissingExtra(FieldcastError, ImportError):
    """A feature whose optional dependency is not installed."""

    exit_code = 2

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the '{extra}' extra: pip install \"fieldcast[{extra}]\"")


class DataError(FieldcastError, ValueError):
    """Input data that is refused."""

    exit_code = 3


class CheckpointError(FieldcastError, ValueError):
    """A checkpoint that is corrupt, unsafe, or made for something else."""

    exit_code = 4


class TrainingDiverged(FieldcastError):
    """A loss or gradient that is no longer finite."""

    exit_code = 5


class SolverFailed(FieldcastError):
    """An evolution that can't go on."""

    exit_code = 5


class OutOfResources(FieldcastError):
    """No memory or no disk left."""

    exit_code = 6


class TrainingStopped(FieldcastError):
    """Training stopped on request after it had saved; run again to go on."""

    exit_code = 75
