"""Exceptions that are shown to a user as a message, without a traceback."""


class UserError(Exception):
    """An error that the user can fix.

    Its message names what is wrong, the value, what is allowed and the next command. Every command prints it
    as its last line and exits with status 1. Any other exception of a step is a bug and keeps its traceback.
    """


class ChangedImages(UserError):
    """The prepared images have changed since the sweep started."""


class Interrupted(Exception):
    """Interrupted by the user; can be resumed. The message says how."""


class TakenOver(UserError):
    """Another process has taken over this run; this process must not write to it."""
