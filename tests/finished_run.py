"""A finished run of the packaged model on a few pairs, written without a search: what readers of such a folder need."""

import copy
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from conftest import write_pairs

sys.path.insert(0, str(Path(__file__).parent / "reports"))
from sample_results import RESULTS

from headwise.data.read import read
from headwise.edits.mask import Mask
from headwise.towers import load

CHOSEN = ("L1.H2", "L3.H5")


HOSTILE = """</script><script>document.title = "broken"</script>"""
ODD = (HOSTILE, "שלום עולם חתול", "👩‍🚀 in space", "قطة سوداء", "a|b & <b>bold</b>")


def finished_run(folder: Path, images: int = 60, captions: Sequence[str] = ()) -> Path:
    """`folder/run`, of the pairs in `folder/pairs.csv`: two thirds of the images are the search split.

    Arguments:
        captions: one more for each of the first images.
    """
    pairs = write_pairs(folder, images)
    with pairs.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([f"images/{i}.png", caption] for i, caption in enumerate(captions))
    given, model, run = read(pairs), load("demo"), folder / "run"
    results = copy.deepcopy(RESULTS)
    results["model"] |= {"name": "demo", "weights_hash": model.tower.weights_hash}
    results["data"] |= {"source": str(pairs), "hash": given.hash}
    mask = Mask.suppress(model.tower.grid, CHOSEN, "uniform")
    mask.with_provenance(base_model="demo", weights_hash=model.tower.weights_hash).save_pretrained(run)
    cut, last = images * 2 // 3, images * 5 // 6
    splits = {"search": given.ids[:cut], "pick": given.ids[cut:last], "test": given.ids[last:]}
    (run / "splits.json").write_text(json.dumps(splits))
    (run / "results.json").write_text(json.dumps(results))
    return run
