"""What a message may hold, and how it names options.

In: text from anywhere, the name of an option. Out: text that every terminal and file takes; the option as the user's
interface writes it, `--split-column` or `split=`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # colours and cursor moves of a terminal
# what is no character to look at: controls, halves of characters, line separators, marks that turn the direction of writing
UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_QUOTED = re.compile(r"\\udc([89a-f][0-9a-f])")  # such a byte as Python quotes it
_COMMAND_LINE: ContextVar[bool] = ContextVar("command_line", default=False)
_OPTIONS = {"split": "split-column"}  # Python's name → the command line's, where they differ


def printable(text: str) -> str:
    """Text that every terminal and file takes: bytes that are not UTF-8 and control characters as `\\xNN`, no colours."""
    text = _QUOTED.sub(r"\\x\1", _ESCAPE.sub("", text))
    return UNSEEN.sub(_seen, text)


def _seen(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


@contextmanager
def command_line() -> Iterator[None]:
    """Inside, messages name options as the command line does."""
    token = _COMMAND_LINE.set(True)
    try:
        yield
    finally:
        _COMMAND_LINE.reset(token)


def option(name: str, value: str = "") -> str:
    """An option as the user's interface writes it: `--split-column NAME` on the command line, `split=NAME` in Python.

    Arguments:
        name: as Python calls it.
        value: what to give it; for a switch `True`, which the command line leaves out.
    """
    if not _COMMAND_LINE.get():
        return f"{name}={value}" if value else f"{name}="
    flag = "--" + _OPTIONS.get(name, name).replace("_", "-")
    return f"{flag} {value}" if value and value != "True" else flag
