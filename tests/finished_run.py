"""A finished run of the packaged model on a few pairs, written without a search: what readers of such a folder need."""

import copy
import json
import sys
from pathlib import Path

from conftest import write_pairs

sys.path.insert(0, str(Path(__file__).parent / "report"))
from sample_results import RESULTS

from headwise.data.read import read
from headwise.edits.mask import Mask
from headwise.towers import load

CHOSEN = ("L1.H2", "L3.H5")


def finished_run(folder: Path, images: int = 60) -> Path:
    """`folder/run`, of the pairs in `folder/pairs.csv`: two thirds of the images are the search split."""
    pairs = write_pairs(folder, images)
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
