"""What workers gain: the same masks in one process and by two workers, in processor time, and more workers by replay.

    OMP_NUM_THREADS=1 python benchmarks/scale.py
    OMP_NUM_THREADS=1 python benchmarks/scale.py --ray

The packaged model, every head and 59 pairs of heads: two sets of 48. One process and the workers take turns. The gain is given
by the clock, for an idle machine, and by processor time, which other work touches less: that of one process over that of the
critical path, the busiest worker and after it all that the driver did. The fastest repeat of each counts. More workers: the tasks that as many would get, each with its share of the
measured time and the measured cost of a task, on as many images as the demo has, given to whoever is free first. And what
the machine allows: two processes that know nothing of each other do all of it at the same time, which takes longer than one alone
where cores share memory, caches or a turbo. One JSON object.
"""

from __future__ import annotations

import argparse
import heapq
import json
import multiprocessing
import random
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import psutil

from headwise.edits.mask import Mask
from headwise.evaluation.crew.crew import Crew, _Set
from headwise.evaluation.crew.processes import Processes
from headwise.evaluation.crew.work import spec_of
from headwise.evaluation.engine import walks
from headwise.evaluation.evaluator import inline
from headwise.jobs.steps.bench import Bench, prepare
from headwise.jobs.steps.opening import Machine, load_model, read_pairs, whole
from headwise.jobs.steps.progress import Silent
from headwise.processor import machine
from headwise.staging import temporary

REPLAYED = 1984  # images of the whole demo: there are enough chunks for eight workers


def masks_of(bench: Bench) -> list[Mask]:
    heads, draw = list(bench.tower.grid), random.Random(0)
    pairs = [Mask.suppress(bench.tower.grid, draw.sample(heads, 2)) for _ in range(95 - len(heads))]
    return [Mask.identity(bench.tower.grid), *(Mask.suppress(bench.tower.grid, [head]) for head in heads), *pairs]


def spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def workers(crew: Crew) -> list[psutil.Process]:
    """The processes that work for this one: its children, and Ray's."""
    own = [process for process in psutil.Process().children(recursive=True) if process.status() != psutil.STATUS_ZOMBIE]
    hired = {hand.process.pid for hand in crew.hands if hasattr(hand, "process")}  # type: ignore[attr-defined]
    return [p for p in own if p.pid in hired or p.name().startswith("ray::Actor")]


def independent(images: int, chunk: int | None, start: Any, found: Any) -> None:
    """A process of its own: all masks, begun together with the other one; the seconds by the clock."""
    bench = bench_of(images, chunk)
    evaluate = replace(bench.evaluator("search"), launcher=inline)
    evaluate(masks_of(bench)[:9])
    start.wait()
    began = time.perf_counter()
    evaluate(masks_of(bench))
    found.put(time.perf_counter() - began)


def together(images: int, chunk: int | None) -> list[float]:
    """Seconds of two processes that work at the same time, each on everything."""
    context = multiprocessing.get_context("spawn")
    start, found = context.Barrier(2), context.Queue()
    both = [context.Process(target=independent, args=(images, chunk, start, found)) for _ in range(2)]
    for one in both:
        one.start()
    seconds = [found.get() for _ in both]
    for one in both:
        one.join()
    return seconds


def bench_of(images: int, chunk: int | None) -> Bench:
    model, pairs = load_model("demo", Machine()), read_pairs("demo", Silent(), {})
    pairs = pairs.subset(range(images))
    return prepare(model, pairs, whole(pairs), dtype="float32", chunk=chunk)


def replay(bench: Bench, sets: list[list[Mask]], count: int, alone: float, task: float, driver: float) -> float:
    """Times faster than one process with so many workers, on `REPLAYED` images; the driver's part grows with them."""
    times = REPLAYED / len(bench.pairs)
    alone, driver = alone * times, driver * times
    evaluate = replace(bench.evaluator("search"), pixels=cast(Any, range(REPLAYED)))
    with temporary() as folder:
        planned = SimpleNamespace(count=count, folder=folder, _files=0, _shared=lambda *_: ("", ""))
        orders = list(Crew._orders(cast(Any, planned), evaluate, {i: _Set(masks) for i, masks in enumerate(sets)}))
    rate = alone / sum(order.cost for order in orders)
    free = [0.0] * count
    for order in orders:
        heapq.heapreplace(free, free[0] + order.cost * rate + task)
    return alone / (max(free) + driver)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--chunk", type=int, help="images that go through the tower together; by default as refine has it"
    )
    parser.add_argument("--ray", action="store_true", help="actors instead of processes")
    args = parser.parse_args()
    bench = bench_of(args.images, args.chunk)
    if args.ray:
        from headwise.evaluation.crew.rays import Rays

        launcher = Rays("auto", 2, "cpu", 1)
    else:
        launcher = Processes(2, ["cpu"])
    crew = Crew(launcher, spec_of(bench.model, bench.layout))
    masks, sets = masks_of(bench), walks(masks_of(bench))
    list(crew(bench.evaluator("search"), walks(masks[:9])))  # first calls are slower
    busy, alone, driver, clock, equal = [], [], [], ([], []), True
    for _ in range(args.repeats):
        began, wall = time.process_time(), time.perf_counter()
        one = replace(bench.evaluator("search"), launcher=inline)(masks)
        alone.append(time.process_time() - began)
        clock[0].append(time.perf_counter() - wall)
        before = [spent(process) for process in workers(crew)]
        began, wall = time.process_time(), time.perf_counter()
        two = replace(bench.evaluator("search"), launcher=crew)(masks)
        driver.append(time.process_time() - began)
        clock[1].append(time.perf_counter() - wall)
        busy.append([spent(process) - then for process, then in zip(workers(crew), before, strict=True)])
        equal &= all(a.loss == b.loss and (a.hits == b.hits).all() for a, b in zip(one, two, strict=True))
    crew.close()
    both = together(args.images, args.chunk)
    best = min(range(args.repeats), key=lambda i: max(busy[i]) / alone[i])
    tasks = len(sets) * 4  # two by images and two of scores for each set
    task = max(0.0, (sum(busy[best]) - alone[best]) / tasks)
    print(
        json.dumps(
            {
                "machine": machine(),
                "launcher": type(launcher).__name__,
                "images": args.images,
                "chunk": bench.layout.chunk,
                "masks": len(masks),
                "equal scores": bool(equal),
                "seconds, one process": round(alone[best], 2),
                "seconds of the two workers": [round(value, 2) for value in busy[best]],
                "seconds of their driver": round(driver[best], 2),
                "seconds by the clock": {
                    "one process": round(min(clock[0]), 2),
                    "two workers": round(min(clock[1]), 2),
                },
                "times faster by the clock": round(min(clock[0]) / min(clock[1]), 2),
                "seconds, two independent processes": [round(value, 2) for value in both],
                "times faster that this machine allows": round(2 * min(clock[0]) / max(both), 2),
                "times faster, 2 workers": round(alone[best] / (max(busy[best]) + driver[best]), 2),
                "overhead of workers and driver, %": round(
                    100 * ((sum(busy[best]) + driver[best]) / alone[best] - 1), 1
                ),
                "times faster by replay": {
                    count: round(replay(bench, sets, count, alone[best], task, driver[best]), 2) for count in (2, 4, 8)
                },
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
