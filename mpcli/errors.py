"""How a command can end badly; the command line turns each into an exit code and one sentence."""


class InputError(Exception):
    """The request was wrong: an unreadable file, a value out of range, an unknown name. Exit code 2.

    The message is one sentence: the file or option, what is wrong with it, and what would be right.
    """


class Failed(Exception):
    """The request was right, but the work did not succeed: a check failed or training diverged. Exit code 1."""


class Interrupted(BaseException):
    """Training stopped at a step boundary because the user asked; a checkpoint was saved. Exit code 130."""


class Finished(BaseException):
    """One of several processes has done its part of a training; the first goes on alone. Exit code 0."""
