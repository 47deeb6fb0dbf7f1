"""How long a click takes in the explorer: until its first answer, and until that of all images.

    python benchmarks/explore.py --run refined/                 # a finished run of the packaged demo
    python benchmarks/explore.py --run refined/ --edit uniform  # with the edit that it swept: an estimate comes first
    python benchmarks/explore.py --vit --images 1000            # a ViT-B/32 with random weights, 1,000 images
    python benchmarks/explore.py --vit --threads 2
    python benchmarks/explore.py --vit --images 1000 --swept    # the same, as if a run had swept this edit of these heads
    python benchmarks/explore.py --run refined/ --drag          # how good the guess is while a scale is dragged
    python benchmarks/explore.py --run refined/ --edit uniform --several    # how good it is of several heads that were swept

Heads of the first, the middle and the last block are switched off alone, one after the other: blocks from theirs on run.
One JSON object a line, times as medians. With `--drag` every one of them is then given other scales, and what is guessed from its
removal is compared with what is computed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from itertools import product
from pathlib import Path

import torch

import headwise
from headwise.data.cache import pixels
from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.evaluation.layout import plan
from headwise.evaluation.streams import Streams
from headwise.jobs.explore import prepare
from headwise.jobs.report import finished
from headwise.jobs.steps.exploring import Session
from headwise.jobs.steps.guessing import Guesses
from headwise.jobs.steps.opening import Machine
from headwise.jobs.steps.progress import Silent
from headwise.jobs.steps.tasks import Goal, Task
from headwise.processor import machine


def vit(images: int) -> Session:
    """A CLIP ViT-B/32 with random weights on pictures of the demo; its texts are random directions."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    module = CLIPVisionModelWithProjection(CLIPVisionConfig()).eval()
    model = headwise.wrap(module, CLIPImageProcessor(), name="ViT-B/32, random weights")
    pairs = headwise.read("demo").subset(range(images))
    layout = plan(model.tower, dtype="auto")
    streams = Streams(model.tower.cast(layout.device, layout.torch_dtype), pixels(pairs, model), layout)
    before = streams.begin()
    task = Task("retrieval", "mean_recall", torch.randn(len(pairs.texts), before.shape[1]), "random")
    grid = model.tower.grid
    return Session(
        Path(), model, pairs, range(images), pairs, task, streams, layout, before, Mask.identity(grid), Guesses(before)
    )


def clicks(session: Session, repeats: int, edit: str) -> list[dict]:
    """Seconds for heads of three blocks, the median of so many heads each."""
    grid, found = session.streams.tower.grid, []
    for row in _rows(grid):
        firsts, wholes, some = [], [], []
        for index in range(min(repeats, grid.rows[row])):
            began, first = time.perf_counter(), None
            for answer in session.look({"edits": {str(grid.head(row, index)): edit}}):
                if first is None:
                    first = time.perf_counter() - began
                    some.append(answer["done"])
            firsts.append(first or 0.0)
            wholes.append(time.perf_counter() - began)
        middle = len(firsts) // 2
        found.append(
            {
                "block": row,
                "first_answer_s": round(sorted(firsts)[middle], 2),
                "of_images": sorted(some)[middle],
                "all_s": round(sorted(wholes)[middle], 2),
            }
        )
    return found


def sweep(session: Session, repeats: int, edit: str) -> None:
    """What a run's sweep would have left of the heads that `clicks` clicks on; the session forgets that it computed them."""
    grid = session.streams.tower.grid
    for row in _rows(grid):
        for index in range(min(repeats, grid.rows[row])):
            mask = Mask.of(grid, {grid.head(row, index): edit})
            session.known.learn(mask, torch.cat([e for _, e in session.streams.embed(mask)]))
    session.streams = Streams(session.streams.tower, session.streams.pixels, session.layout)
    session.streams.begin()


def several(session: Session, repeats: int, edit: str) -> list[dict]:
    """For so many heads, drawn at random, given at once or clicked one after the other: seconds until the guess of the last
    answer, and how far it is from what is computed then."""
    heads, draw = list(map(str, session.streams.tower.grid)), random.Random(0)
    found = []
    for way, count in product(("at once", "one after the other"), (2, 4, 8)):
        firsts, pairs = [], []
        for _ in range(repeats):
            drawn = draw.sample(heads, count)
            for n in [count] if way == "at once" else range(1, count + 1):
                began, answers = time.perf_counter(), []
                for answer in session.look({"edits": dict.fromkeys(drawn[:n], edit)}):
                    answers.append((time.perf_counter() - began, answer))
            (first, guess), (_, exact) = answers[0], answers[-1]
            assert guess["estimated"]
            firsts.append(first)
            pairs.append((_change(guess), _change(exact)))
        off = [abs(a - b) for a, b in pairs]
        found.append(
            {
                "heads": count,
                "way": way,
                "guess_s": round(statistics.median(firsts), 2),
                "guessed_points": [round(a, 2) for a, _ in pairs],
                "computed_points": [round(b, 2) for _, b in pairs],
                "off_by_points": round(statistics.median(off), 2),
                "most": round(max(off), 2),
            }
        )
    return found


def drags(session: Session, repeats: int) -> list[dict]:
    """For heads of three blocks and scales: seconds until the guess, and how far it is from what is computed then."""
    grid, found = session.streams.tower.grid, []
    for row in _rows(grid):
        heads = [str(grid.head(row, index)) for index in range(min(repeats, grid.rows[row]))]
        for head in heads:
            list(session.look({"edits": {head: "zero"}}))
        for scale in (0.5, 0.9, 1.5):
            firsts, recalls, moved = [], [], []
            for head in heads:
                began, answers = time.perf_counter(), []
                for answer in session.look({"edits": {head: f"scale({scale})"}}):
                    answers.append((time.perf_counter() - began, answer))
                (first, guess), (_, exact) = answers[0], answers[-1]
                assert guess["estimated"]
                firsts.append(first)
                recalls.append(100 * abs(_main(guess) - _main(exact)))
                moved.append(guess["moved"]["mean"] / exact["moved"]["mean"])
            found.append(
                {
                    "block": row,
                    "scale": scale,
                    "guess_s": round(statistics.median(firsts), 2),
                    "recall_off_by_points": round(statistics.median(recalls), 2),
                    "most": round(max(recalls), 2),
                    "movement_guessed_by_computed": round(statistics.median(moved), 2),
                }
            )
    return found


def _rows(grid: Grid) -> list[int]:
    """The first, the middle and the last block."""
    rows = len(grid.rows)
    return list(dict.fromkeys((0, rows // 2, rows - 1)))


def _main(answer: dict) -> float:
    return next(one["after"] for one in answer["metrics"] if one["name"] == answer["fitness"])


def _change(answer: dict) -> float:
    """In points."""
    return 100 * next(one["after"] - one["before"] for one in answer["metrics"] if one["name"] == answer["fitness"])


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--vit", action="store_true")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--edit", default="zero")
    parser.add_argument("--swept", action="store_true")
    parser.add_argument("--drag", action="store_true")
    parser.add_argument("--several", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.set_grad_enabled(False)
    if asked.run:
        session = prepare(asked.run, finished(asked.run), None, asked.images, Goal(), Machine(), Silent(), {})
    else:
        session = vit(asked.images)
    about = {
        "model": session.model.name,
        "images": len(session.pairs),
        "dtype": session.layout.dtype,
        "load": Path("/proc/loadavg").read_text()[:4],
    }
    print(json.dumps(about | {"machine": machine("cpu")}))
    if asked.swept:
        sweep(session, asked.repeats, asked.edit)
    if asked.drag:
        found = drags(session, asked.repeats)
    elif asked.several:
        found = several(session, asked.repeats, asked.edit)
    else:
        found = clicks(session, asked.repeats, asked.edit)
    for one in found:
        print(json.dumps(one), flush=True)


if __name__ == "__main__":
    main()
