"""What may be opened to be read: files. A device or a pipe may have no end, or nobody who writes into it."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def check_regular(path: str | Path) -> None:
    """Call it before a path of the user's, or one in a folder of others, is opened.

    Raises:
        OSError: it is a device or a pipe. What is not there, or is a folder, says so when it is opened.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file", str(path))
