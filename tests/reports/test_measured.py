"""The page of a sweep of an uneven model, with names that try to break out of it."""

import json

from sample_results import metrics

from headwise.reports.measured import measured_html

HOSTILE = "</script><script>alert(1)</script> <b>שלום</b>"
HEADS = ["L0.H0", "L0.H1", "L1.H0", "pool.H0", "pool.H1", "pool.H2"]


def page() -> str:
    heads = [{"head": h, "delta": 0.01 * (i - 2), "loss_delta": -0.01, "p_max_t": 0.5} for i, h in enumerate(HEADS)]
    sweep = {
        "format": 1,
        "model": HOSTILE,
        "data": {"source": HOSTILE, "images": 3, "captions": 4},
        "settings": {"objective": {"fitness": "mean_recall"}},
        "sweep": {"operator": "zero", "identity": metrics(0.3), "p_error": 0.0, "heads": heads},
        "first_order": None,
        "ffe": 5.0,
    }
    return measured_html(sweep, None, name=HOSTILE, others=[("Transfer", HOSTILE)])


def test_rows_are_the_models_own_and_the_pooling_comes_last():
    text = page()
    places = [text.index(f'id="{head}"') for head in HEADS]
    assert places == sorted(places)
    assert text.count('data-head="') == len(HEADS)
    assert text.index('<th scope="row">pool</th>') > text.index('<th scope="row">L1</th>')
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["sweeps"][0]["scale"] == 0.03
    assert data["first"] == "pool.H2"  # the most harmful


def test_text_from_outside_stays_text():
    text = page()
    assert "<b>" not in text
    assert text.count("</script>") == 2  # data and the page's own
    assert "alert(1)" in text
