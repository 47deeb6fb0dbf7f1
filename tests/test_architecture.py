"""The house stays a house: imports point down, none closes a circle, files stay small, what others use is explained."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "headwise"
ROOMS = (  # from the roof to the ground; a room may import those below it
    "__main__",
    "cli",
    "__init__",
    "jobs",
    "reports",
    "baselines",
    "explanation",
    "search",
    "shipping",
    "applied",
    "evaluation",
    "scoring",
    "data",
    "towers",
    "edits",
    "demo",
    "files",
    "staging",
    "checked",
    "processor",
    "memory",
    "sums",
    "hub",
    "reading",
    "errors",
    "plain",
    "wording",
    "version",
)
LONGEST = 400
EXPLAINED = 0.95


@cache
def trees() -> dict[str, ast.Module]:
    """Every module's syntax tree, by its name below `headwise.`; a package's own file has the name `x.__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(name: str) -> Iterator[tuple[str, str]]:
    """(module, imported name) of everything that a module takes from headwise, wherever the import stands in it."""
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "headwise":
            base = node.module.removeprefix("headwise").removeprefix(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".strip(".")
                if inner in trees():
                    yield inner, ""
                elif f"{inner}.__init__" in trees():
                    yield f"{inner}.__init__", ""
                else:
                    yield (base if base in trees() else f"{base}.__init__".strip(".")), alias.name


def room(name: str) -> str:
    return name.split(".")[0]


def test_every_room_has_its_place():
    assert {room(name) for name in trees()} <= set(ROOMS)


def test_imports_point_down():
    floor = {name: number for number, name in enumerate(ROOMS)}
    upward = [
        f"{name} takes {what or 'the module'} from {other}"
        for name in trees()
        for other, what in imports(name)
        if floor[room(other)] < floor[room(name)]
    ]
    assert not upward, "\n".join(upward)


def test_no_import_closes_a_circle():
    """Imports inside functions and for types count: they tie files together as well."""
    ahead = {name: {other for other, _ in imports(name) if other != name} for name in trees()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(ahead[name]):
                visit(other, (*way, name))
            done.add(name)

    for name in ahead:
        if name != "__init__":  # the package's face names what is above it, for type checkers
            visit(name, ())


def test_no_file_is_too_long_to_hold_in_the_head():
    root = PACKAGE.parent
    paths = [
        path for folder in ("headwise", "tests", "benchmarks", "recipes") for path in (root / folder).rglob("*.py")
    ]
    long = {str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert not {name: lines for name, lines in long.items() if lines > LONGEST}


def test_every_module_says_what_it_is_for():
    silent = [n for n, tree in trees().items() if tree.body and ast.get_docstring(tree) is None]
    assert not silent, silent


def test_what_other_files_use_is_explained():
    """Functions and classes that another file imports, and their public methods that another file names."""
    used = {pair for name in trees() for pair in imports(name) if pair[0] != name}
    attributes = {
        name: {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for name, tree in trees().items()
    }
    explained, bare = 0, []
    for name, tree in trees().items():
        elsewhere = set().union(*(found for other, found in attributes.items() if other != name))
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or (name, node.name) not in used:
                continue
            inner = [
                item
                for item in (node.body if isinstance(node, ast.ClassDef) else [])
                if isinstance(item, ast.FunctionDef) and not item.name.startswith("_") and item.name in elsewhere
            ]
            for item in (node, *inner):
                if ast.get_docstring(item) is None:
                    bare.append(f"{name}.{node.name}" + (f".{item.name}" if item is not node else ""))
                else:
                    explained += 1
    share = explained / (explained + len(bare))
    assert share >= EXPLAINED, f"{share:.1%} explained; without a docstring:\n" + "\n".join(bare)
