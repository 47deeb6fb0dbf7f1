"""The one exception of the package."""

from headwise.wording import printable


class HeadwiseError(Exception):
    """Anything a user can put right: bad input, a wrong model, a full disk.

    The message says what was wrong, where (path, row, shape) and what to do. The command line prints it
    without a traceback and exits with 1. Whatever it quotes can be printed.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))
