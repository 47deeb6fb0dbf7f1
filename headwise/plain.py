"""Text from outside (paths, captions, names of models) is text, whatever it is shown in: one function per output.

Each takes anything and returns characters that the output shows as they are; a character that would do something
instead (colour a terminal, reverse a line, close a table's cell) is spelled out, as `\\x1b`.
"""

from __future__ import annotations

import codecs
import json
import re
import shlex

_ESCAPES = re.compile(  # what colours a terminal, moves its cursor, sets its title
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]"
)
# what is no character to look at: controls, halves of characters, line separators, marks that turn the direction of writing
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)
_QUOTED = re.compile(r"\\udc([89a-f][0-9a-f])")  # a byte that is not UTF-8, as Python quotes it
_SPACES = re.compile(r"[\t\n]+")
_MARKDOWN = re.compile(
    r"[\\`*\[\]|~$]"  # code, emphasis, links, cells of tables, formulas
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # tags, comments and entities of HTML
    r"|(?<![^\W_])_|_(?![^\W_])"  # an underscore within a word is one
)
_ENTITIES = {"<": "&lt;", "&": "&amp;"}
_PLAIN_YAML = re.compile(r"[A-Za-z][\w./-]*", re.ASCII)
_YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_ASCII = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "—": "-",
        "→": "->",
        "←": "<-",
        "×": "x",
        "…": "...",
        "≥": ">=",
        "≤": "<=",
        "±": "+-",
        "·": "-",
        "●": "*",
    }
)


class Markdown(str):
    """Text that is Markdown already."""


def terminal(text: object) -> str:
    """For a terminal, a log, or an error message: lines stay lines, no character does anything else.

    Bytes that are not UTF-8 and control characters are shown as `\\xNN`; colours are left out.
    """
    return _UNSEEN.sub(_seen, _QUOTED.sub(r"\\x\1", _ESCAPES.sub("", str(text))))


def line(text: object) -> str:
    """For one line of any output: as for a terminal, and without line breaks."""
    return terminal(_SPACES.sub(" ", str(text)))


def markdown(text: object) -> Markdown:
    """For running text, a heading or a table's cell in Markdown, but not where a line begins; Markdown itself stays.

    Source: CommonMark 0.31 (any ASCII punctuation may be escaped by a backslash), GitHub's tables.
    """
    if isinstance(text, Markdown):
        return text
    return Markdown(_MARKDOWN.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), line(text)))


def code(text: object) -> Markdown:
    """For Markdown, as code within a line; its fence is longer than any run of backticks inside."""
    shown = line(text).replace("|", "\\|")  # in GitHub's tables a bar ends the cell even in code
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    pad = " " if shown.startswith("`") or shown.endswith("`") or not shown.strip() else ""
    return Markdown(f"{fence}{pad}{shown}{pad}{fence}")


def literal(text: object) -> Markdown:
    """A text of Python, Java or JSON, with its quotes, for a block of code; all of it on one line."""
    return json_text(str(text))


def json_text(value: object, indent: int | None = None) -> Markdown:
    """A value as JSON for a block of code."""
    return Markdown(_UNSEEN.sub(_unicode, json.dumps(value, indent=indent, ensure_ascii=False)))


def argument(text: object) -> Markdown:
    """A word of a command for a block of code, quoted for a shell; all of it on one line."""
    shown = str(text)
    if line(shown) == shown:
        return Markdown(shlex.quote(shown))
    quoted = shown.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t")
    return Markdown("$'" + _UNSEEN.sub(_unicode, quoted) + "'")


def yaml(text: object) -> str:
    """A value in a YAML header, quoted unless it can be nothing but this text."""
    shown = str(text)
    if _PLAIN_YAML.fullmatch(shown) and shown.lower() not in _YAML_WORDS:
        return shown
    return json_text(shown)


def picture(text: object, most: int = 120) -> str:
    """For a title or label of a picture: one line of bounded length. Formulas are off there (`report.drawing`)."""
    shown = line(text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def for_encoding(error: UnicodeError) -> tuple[str, int]:
    """What a terminal shows that lacks a character: its nearest in ASCII, or its number. An error handler of codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    near = lacking.translate(_ASCII)
    return near.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error("headwise", for_encoding)


def _seen(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _unicode(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
