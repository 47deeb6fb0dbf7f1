"""Notebooks of `examples/`: run, with their pictures, from the scripts of the same name.

    python tools/notebooks.py            # runs examples/*.py (jupytext's percent format) and writes examples/*.ipynb

In: scripts. Out: executed notebooks. Progress bars and times are left out, so that a notebook changes when its results do.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: Path, folder: Path) -> nbformat.NotebookNode:
    """A script as an executed notebook.

    Arguments:
        script: in jupytext's percent format.
        folder: where it runs.
    """
    notebook = jupytext.read(script)
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"
    NotebookClient(
        notebook,
        timeout=3600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _progress(output)]
    return notebook


def _progress(output: nbformat.NotebookNode) -> bool:
    return output.output_type == "stream" or "<progress" in str(output.get("data", {}).get("text/html", ""))


def main() -> None:
    """Write every notebook."""
    for script in (EXAMPLES / name for name in sys.argv[1:]) if sys.argv[1:] else sorted(EXAMPLES.glob("*.py")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(run(script, Path(folder)), script.with_suffix(".ipynb"))
        print(script.with_suffix(".ipynb").name)


if __name__ == "__main__":
    main()
