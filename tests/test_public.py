"""The public names: all of them in `dir` and `help`, none hidden by a module of its name."""

import importlib
import pkgutil
import pydoc

import pytest

import headwise


def test_every_public_name_is_in_dir_and_in_help():
    text = pydoc.render_doc(headwise, renderer=pydoc.plaintext)
    for name in set(headwise.__all__) - {"__version__"}:
        assert name in dir(headwise)
        assert name in text
    assert headwise._WHERE.keys() | {"__version__"} == set(headwise.__all__)


@pytest.mark.parametrize("name", sorted(set(headwise.__all__) - {"__version__"}))
def test_a_public_name_is_documented(name):
    assert getattr(headwise, name).__doc__


def test_no_room_has_the_name_of_a_public_function():
    """A package of that name would take the function's place as soon as it is imported."""
    rooms = {module.name for module in pkgutil.iter_modules(headwise.__path__)}
    assert not rooms & set(headwise.__all__)
    importlib.import_module("headwise.jobs.report")
    assert callable(headwise.report)


def test_every_command_is_a_public_function():
    import typer

    from headwise.cli.app import app

    no_function = {
        "demo",
        "models",
        "data",
        "cache",
        "explore",
        "batch",
    }  # they look at this machine, serve a page, run commands
    assert set(typer.main.get_command(app).commands) - no_function <= set(headwise.__all__)


def test_the_packaged_model_is_called_demo_wherever_it_lies():
    assert headwise.load("demo").name == "demo"
