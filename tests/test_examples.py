"""The notebooks of examples/ hold what their scripts say, with outputs and pictures; run again, they end without an error."""

import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
jupytext = pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_is_the_script_executed(script):
    notebook = script.with_suffix(".ipynb")
    assert notebook.stat().st_size < 1_000_000
    kept, source = nbformat.read(notebook, as_version=4), jupytext.read(script)
    assert [cell.source for cell in kept.cells] == [cell.source for cell in source.cells]
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]


@pytest.mark.slow  # each is a search on the packaged model
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_notebook_runs(script, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from notebooks import run

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with warnings.catch_warnings(action="ignore"):  # of the kernel about its own connection
        notebook = run(script, tmp_path)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
