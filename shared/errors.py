"""The two errors that a user meets; `shared.command.run` turns them into one line and an exit code."""


class ManyheadsError(Exception):
    """The work failed for a reason that is not the user's input (exit code 1)."""

    exit_code = 1


class InputError(ManyheadsError):
    """The user's input is wrong (exit code 2). The message is one line: the file, the field and the mend."""

    exit_code = 2
