"""Results, masks and studies in a notebook: short reprs, HTML that escapes, tables, pictures, bars."""

import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import write_pairs

import headwise
from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.study import Study
from headwise.jobs.refine import Refined
from headwise.jobs.steps.findings import Findings
from headwise.jobs.steps.notebook import in_notebook
from headwise.reports.heatmap import heatmap_png

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))
from sample_results import RESULTS

SHORT = 500  # characters of a repr
HOSTILE = "</script><img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """Which tags there are, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text, self.cells = set(), "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data
        self.cells.append(data)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return headwise.read(write_pairs(tmp_path_factory.mktemp("pairs"), 40))


@pytest.fixture(scope="module")
def swept(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    return *headwise.sweep("demo", pairs, out, operator="zero"), out


def test_reprs_are_short(pairs, swept):
    sweep, results, out = swept
    many = headwise.read("demo")
    refined = Refined(Mask.suppress(Grid((6,) * 6), ["L1.H2", "L3.H5"], "uniform"), Findings(RESULTS), None)
    with Study.reopen(out / "sweep.sqlite") as study:
        for one in (many, pairs, sweep, sweep.identity, sweep.heads[0], results, refined, study, headwise.load("demo")):
            assert len(repr(one)) < SHORT, type(one)
    mask = refined.mask.with_provenance(seen={"search": {"looks": "x" * 100_000}})
    assert repr(mask) == "Mask('L1.H2=uniform, L3.H5=uniform', 2 of 36 heads)"
    wide = Mask.suppress(Grid((16,) * 24), [f"L{i}.H{j}" for i in range(24) for j in range(16)])
    assert len(repr(wide)) < SHORT


def test_the_table_of_a_sweep_is_what_was_measured(swept):
    sweep, results, _ = swept
    table = results.to_pandas().set_index("head")
    assert len(table) == 36
    for effect in sweep.heads:
        assert table.loc[str(effect.head), "change"] == effect.delta
    assert results == json.loads(json.dumps(results))  # a dictionary as before


def test_a_study_as_a_table(swept):
    sweep, _, out = swept
    with Study.reopen(out / "sweep.sqlite") as study:
        table = study.to_pandas()
        assert len(table) == study.count() == 37
        row = table[table["mask"] == "L4.H0=zero"].iloc[0]
        effect = next(one for one in sweep.heads if str(one.head) == "L4.H0")
        assert row["fitness"] == effect.found.score.fitness
        assert row["mean_recall"] == effect.found.score.metrics["mean_recall"]
        assert f"{max(table['fitness']) * 100:.2f} %" in study.summary()
        shown = Tags(study._repr_html_())
        assert "table" in shown.tags
        assert "37 rows" in shown.text


def test_refined_shows_its_verdict_its_table_and_its_picture(tmp_path):
    found = Refined(Mask.identity(Grid((6,) * 6)), Findings(RESULTS), None)
    shown = Tags(found._repr_html_())
    assert "uniform" in found.summary() or "L1.H2" in found.summary()
    assert "+1.28" in shown.text
    assert found.summary()[:40] in shown.text
    table = found.to_pandas()
    assert len(table) == 72
    assert set(table[table["chosen"]]["head"]) == {"L1.H2", "L3.H5"}
    picture = found.plot()
    assert picture._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.save(tmp_path / "heads.png").read_bytes() == picture.png
    assert len(repr(picture)) < 50


def test_text_from_outside_stays_text(pairs):
    results = json.loads(json.dumps(RESULTS))
    results["model"]["name"] = results["data"]["source"] = HOSTILE
    for row in results["test"]:
        row["what"] = row["what"] if row["what"] in ("identity", "chosen") else HOSTILE
    shown = Tags(Findings(results)._repr_html_())
    assert shown.tags <= {"p", "table", "thead", "tbody", "tr", "th", "td"}
    assert HOSTILE in shown.text
    found = headwise.evaluate("demo", pairs)
    found["dataset"] = HOSTILE
    assert "img" not in Tags(found._repr_html_()).tags


def test_the_edits_of_a_mask_as_a_table():
    mask = Mask.suppress(Grid((3, 4), 2), ["L0.H1", "pool.H0"], "scale(0.25)")
    shown = Tags(mask._repr_html_())
    assert shown.cells.count("scale(0.25)") == 2
    assert shown.cells.count("·") == 7
    assert "2 of 9 heads" in shown.text


def test_the_picture_of_a_sweep_has_the_pooling_heads():
    """As the command draws it, which knows the model's grid."""
    heads = [
        {"head": str(head), "delta": 0.01 * i, "loss_delta": 0.0, "p_max_t": 1.0}
        for i, head in enumerate(Grid((2, 3), pool=2))
    ]
    sweep = {"operator": "zero", "identity": {"mean_recall": 0.3}, "heads": heads}
    about = {"data": {}, "settings": {"objective": {"fitness": "mean_recall"}}}
    known = {**about, "model": {"layers": [2, 3], "pool_heads": 2}, "sweep": [sweep]}
    found = Findings({**about, "model": "some SigLIP", "sweep": sweep})
    assert found.plot().png == heatmap_png(known)


def test_what_has_no_table_or_picture_says_so(pairs):
    plan = Findings({"stages": [], "budget": 1.0})
    for what in (plan.to_pandas, plan.plot, headwise.evaluate("demo", pairs).plot):
        with pytest.raises(HeadwiseError):
            what()
    assert plan._repr_html_()


def test_bars_in_the_kernel_of_a_notebook(tmp_path):
    """A real kernel: bars fill in their place, results are shown as HTML, and no bar is printed as text."""
    assert not in_notebook()
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager

    path, kernel = write_pairs(tmp_path, 20), KernelManager()
    kernel._kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], display_name="", language="python"
    )
    kernel.start_kernel(cwd=str(Path(__file__).parents[2]))
    client = kernel.client()
    client.start_channels()
    messages = []
    try:
        client.wait_for_ready(timeout=60)
        code = f"import headwise; _, found = headwise.sweep('demo', {str(path)!r}, operator='zero'); found"
        reply = client.execute_interactive(code, output_hook=messages.append, timeout=120)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", reply["content"]
    shown = [
        m["content"]["data"]["text/html"] for m in messages if m["msg_type"] in ("display_data", "update_display_data")
    ]
    assert any("Sweep (zero)" in text for text in shown)
    ended = [text for text in shown if "Sweep (zero)" in text][-1]
    assert 'value="1.000"' in ended
    results = [m["content"]["data"] for m in messages if m["msg_type"] == "execute_result"]
    assert "<table" in results[0]["text/html"]
