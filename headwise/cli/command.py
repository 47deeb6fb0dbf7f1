"""A function as a command: its groups of options, panels in `--help`, how much it says, its file of options.

In: a function whose parameters are annotated options, or groups of them. Out: what typer makes a command of. A long
command takes `--config` and leaves `run.toml` in its folder, which repeats it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from headwise.cli.panels import panel_of, place_of
from headwise.cli.repeating import RUN_FILE, read_run, run_text
from headwise.errors import HeadwiseError

LONG = ("refine", "demo", "sweep", "explain", "compare", "transfer", "front")
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Say also what is used, and when a stage begins.")]
LogOption = Annotated[
    Path | None, typer.Option("--log-file", help="Write all that is said there, too, with the time of each line.")
]
OWN = ("config", "quiet", "verbose", "log_file")  # of every command, and no job's


def _configure(context: typer.Context, path: Path | None) -> Path | None:
    """Put what the file says in place of the options' defaults, before they are looked up."""
    if path is not None and not context.resilient_parsing:
        takes = {
            str(p.name): bool(getattr(p, "multiple", False)) or p.nargs == -1
            for p in context.command.params
            if p.name not in ("config", "help")
        }
        context.default_map = read_run(path, str(context.command.name), takes)
    return path


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=_configure,
        is_eager=True,
        help=f"A file with arguments and options; what is typed counts more. Every run writes its own: OUT/{RUN_FILE}.",
    ),
]


def check_numbers(values: Mapping[str, object]) -> None:
    """
    Raises:
        HeadwiseError: an option's number that no computation takes: a seed below 0, or a whole number of more than
            63 bits.
    """
    for name, value in values.items():
        if not isinstance(value, int):
            continue
        option = f"--{name.replace('_', '-')}"
        if abs(value) >= 2**63:
            raise HeadwiseError(f"{option} is a number of {len(f'{abs(value):x}') * 4} bits; give a smaller one.")
        if name == "seed" and value < 0:
            raise HeadwiseError(f"{option} is {value}; give a whole number from 0.")


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters that are groups become their options, each with its own name and in its panel.

    Arguments:
        command: a name in `LONG` gets `--config`; all get `--quiet`, `--verbose` and `--log-file`.
    """
    name, hints = command.__name__, get_type_hints(command, include_extras=True)
    own = signature(command).parameters.values()
    groups = {p.name: hints[p.name] for p in own if is_dataclass(hints[p.name])}
    parameters = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in own if p.name not in groups]
    for group in groups.values():
        types = get_type_hints(group, include_extras=True)
        parameters += [_parameter(f.name, types[f.name], f.default) for f in fields(group)]
    parameters += [_parameter("config", ConfigOption, None)] * (name in LONG)
    parameters += [_parameter("quiet", QuietOption, False), _parameter("verbose", VerboseOption, False)]
    parameters.append(_parameter("log_file", LogOption, None))
    parameters = sorted(map(_placed, parameters), key=lambda p: place_of(p.name) if _option(p) else (-1, 0))

    @wraps(command)
    def call(context: typer.Context, **values: Any) -> None:
        from headwise.cli.telling import Terminal, voice

        check_numbers(values)
        said = {key: values.pop(key) for key in OWN if key in values}
        made = dict(values)
        for key, group in groups.items():
            made[key] = group(**{f.name: made.pop(f.name) for f in fields(group)})  # type: ignore[operator]
        with voice(said["quiet"], said["verbose"], said["log_file"]) as how:
            if how.verbose or how.log:
                _say_what_is_used(name, Terminal(quiet=not how.verbose))
            command(**made)
            for group in made.values():
                if hasattr(group, "finish"):
                    group.finish()
            if name in LONG and values.get("out") is not None and not values.get("dry_run"):
                _leave(context, name, values)

    call.__signature__ = Signature(  # type: ignore[attr-defined]
        [Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context), *parameters]
    )
    call.__annotations__ = {"context": typer.Context, **{p.name: p.annotation for p in parameters}}
    return call


def _parameter(name: str, annotation: object, default: object) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _option(parameter: Parameter) -> OptionInfo | None:
    return next((part for part in get_args(parameter.annotation)[1:] if isinstance(part, OptionInfo)), None)


def _placed(parameter: Parameter) -> Parameter:
    """The parameter in its panel; the option that it shares with other commands is not touched."""
    if (option := _option(parameter)) is None:
        return parameter
    own = copy(option)
    own.rich_help_panel = panel_of(parameter.name)
    return parameter.replace(annotation=Annotated[get_args(parameter.annotation)[0], own])  # type: ignore[valid-type]


def _leave(context: typer.Context, name: str, values: Mapping[str, Any]) -> None:
    from headwise.files import write_files

    typed = {key for key in values if (source := context.get_parameter_source(key)) and source.name in _TYPED}
    kept = {key: value for key, value in values.items() if key not in ("as_json", "dry_run")}
    write_files(values["out"], {RUN_FILE: run_text(name, kept, typed)})


_TYPED = ("COMMANDLINE", "DEFAULT_MAP")  # where a value that was given comes from


def _say_what_is_used(name: str, reporter: Any) -> None:
    import platform

    import torch

    from headwise.data.files import cache_folder
    from headwise.version import __version__

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    reporter.say(
        f"headwise {name}, version {__version__}; Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, {', '.join(devices) or 'no GPU'}; cache {cache_folder()}"
    )
