"""How long a click takes in the explorer: until its first answer, and until that of all images.

    python benchmarks/explore.py --run refined/                 # a finished run of the packaged demo
    python benchmarks/explore.py --run refined/ --edit uniform  # with the edit that it swept: an estimate comes first
    python benchmarks/explore.py --vit --images 1000            # a ViT-B/32 with random weights, 1,000 images
    python benchmarks/explore.py --vit --threads 2
    python benchmarks/explore.py --run refined/ --drag          # how good the guess is while a scale is dragged

Heads of the first, the middle and the last block are switched off alone, one after the other: blocks from theirs on run.
One JSON object a line, times as medians. With `--drag` every one of them is then given other scales, and what is guessed from its
removal is compared with what is computed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

import headwise
from headwise.data.cache import pixels
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
    rows = len(grid.rows)
    for row in dict.fromkeys((0, rows // 2, rows - 1)):
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


def drags(session: Session, repeats: int) -> list[dict]:
    """For heads of three blocks and scales: seconds until the guess, and how far it is from what is computed then."""
    grid, found = session.streams.tower.grid, []
    rows = len(grid.rows)
    for row in dict.fromkeys((0, rows // 2, rows - 1)):
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


def _main(answer: dict) -> float:
    return next(one["after"] for one in answer["metrics"] if one["name"] == answer["fitness"])


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--vit", action="store_true")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--edit", default="zero")
    parser.add_argument("--drag", action="store_true")
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
    for one in drags(session, asked.repeats) if asked.drag else clicks(session, asked.repeats, asked.edit):
        print(json.dumps(one), flush=True)


if __name__ == "__main__":
    main()
