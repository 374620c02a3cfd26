"""The exceptions that reach a user as a sentence instead of a traceback."""


class UserError(Exception):
    """Something that a user can cause and mend.

    Its text names what is wrong, what was found, what is allowed and the next move. Every command prints
    it as its last line and exits with status 1; anything else that escapes a step is a defect of ours and
    keeps its traceback.
    """


class ChangedImages(UserError):
    """Prepared images are not what they were when a sweep began with them."""


class Interrupted(Exception):
    """What was asked for was broken off on demand, and can be gone on with. Its text says how."""


class TakenOver(UserError):
    """What is recorded here is another process's by now: nothing more may be written to it."""
