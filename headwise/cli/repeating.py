"""The file of options: `--config run.toml`, and the `run.toml` that a run leaves in its folder.

In: a TOML file whose keys are a command's arguments and options, as they are typed but for the dashes before them; or
the values of a command. Out: values in place of the options' defaults; the text of such a file.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from headwise.errors import HeadwiseError
from headwise.reading import check_regular
from headwise.version import __version__

RUN_FILE = "run.toml"
COMMAND = "command"


def read_run(path: Path, command: str, takes: Mapping[str, bool]) -> dict[str, Any]:
    """What the file says, under the names of the command's parameters.

    Arguments:
        command: the one that is running.
        takes: parameter → whether it may be given several times.

    Raises:
        HeadwiseError: no such file, no TOML, a file of another command, or an option that the command has not.
    """
    try:
        check_regular(path)
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HeadwiseError(f"{path} cannot be read: {error.strerror}. Give a file of options to --config.") from error
    except ValueError as error:
        raise HeadwiseError(
            f"{path} is no TOML file: {error}. Write a line for each option, such as max-minutes = 5."
        ) from error
    if said.pop(COMMAND, command) != command:
        raise HeadwiseError(f"{path} is of another command than {command}; run headwise {_command_of(path)}.")
    found = {}
    for key, value in said.items():
        name = _parameter(key)
        if name not in takes:
            raise HeadwiseError(
                f"{path}: headwise {command} has no option {key!r}. There are: {', '.join(map(_key, takes))}."
            )
        if isinstance(value, dict):
            raise HeadwiseError(f"{path}: {key} is a table; give one value, or a list.")
        if takes[name]:
            found[name] = value if isinstance(value, list) else [value]
        else:
            found[name] = ",".join(map(str, value)) if isinstance(value, list) else value
    return found


def run_text(command: str, values: Mapping[str, Any], given: Collection[str]) -> str:
    """The file that repeats a run: what was given, and in comments what was left as it is.

    Arguments:
        values: parameter → value; None where there is none.
        given: the parameters that were given.
    """
    head = [
        f"# Repeats this run: headwise {command} --config {RUN_FILE}. Paths are as they were typed.",
        f'{COMMAND} = "{command}"',
    ]
    live, usual = [], []
    for name, value in values.items():
        if value is None or value == [] or value == ():
            continue
        text = _toml(value)
        if name not in given:
            usual.append(f"# {_key(name)} = {text}")
        else:
            live.append(f"{_key(name)} = {text}" if text else f"# {_key(name)}: a name that TOML cannot hold; type it")
    rest = ["", f"# as headwise {__version__} has them by default", *usual] if usual else []
    return "\n".join([*head, *live, *rest]) + "\n"


def _command_of(path: Path) -> str:
    return str(tomllib.loads(path.read_text(encoding="utf-8"))[COMMAND])


# an option's name, where Python or another word of the command line has the plain one
_TYPED = {"as_json": "json"}


def _key(name: str) -> str:
    return _TYPED.get(name, name).replace("_", "-")


def _parameter(key: str) -> str:
    back = {typed: name for name, typed in _TYPED.items()}
    return back.get(key, key.replace("-", "_"))


def _toml(value: object) -> str | None:
    """A value as TOML writes it; None for text that it cannot hold (bytes that are no UTF-8)."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        parts = [_toml(part) for part in value]
        return None if None in parts else f"[{', '.join(map(str, parts))}]"
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
