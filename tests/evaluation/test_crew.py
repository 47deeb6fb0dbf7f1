"""Workers: any number of them gives the study of one process, whatever happens to them meanwhile."""

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import write_pairs

from headwise.baselines.training import embeddings_of
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.crew import Staff
from headwise.evaluation.crew.crew import Crew
from headwise.evaluation.crew.processes import Processes
from headwise.evaluation.crew.work import Worker, spec_of
from headwise.evaluation.engine import walks
from headwise.evaluation.evaluator import inline
from headwise.evaluation.study import Study
from headwise.jobs.steps.bench import prepare
from headwise.jobs.steps.opening import Machine, load_model, read_pairs, whole
from headwise.jobs.steps.progress import Silent
from headwise.scoring.losses import loss_of
from headwise.search.training import Anchors
from headwise.search.values import ValueSettings, learn_values

IMAGES = 24


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crew")
    pairs = read_pairs(write_pairs(folder / "pairs", IMAGES), Silent(), {})
    model = load_model("demo", Machine())
    return prepare(model, pairs, whole(pairs), dtype="float32", chunk=4, cache_dir=folder / "cache")


@pytest.fixture(scope="module")
def crew(bench):
    crew = Crew(Processes(3, ["cpu"]), spec_of(bench.model, bench.layout), bench.cache_dir, patience=4.0)
    yield crew
    crew.close()


def embed_times(tower, times):
    """A function that workers call."""
    return tower.grid.size * times.numerator


def many(bench):
    """Every head and some pairs: three sets."""
    heads, draw = list(bench.tower.grid), random.Random(0)
    singles = [Mask.suppress(bench.tower.grid, [head]) for head in heads]
    doubles = [Mask.suppress(bench.tower.grid, draw.sample(heads, 2)) for _ in range(70)]
    return [Mask.identity(bench.tower.grid), *singles, *doubles]


def rows(path):
    """All that a study says, in the order in which it was written."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT * FROM evaluations ORDER BY id").fetchall()


def written(path):
    """Whether another process's study has a row yet; between the file and its table it has none."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as database:
            return database.execute("SELECT count(*) FROM evaluations").fetchone()[0] > 0
    except sqlite3.OperationalError:
        return False


def scored(bench, masks, path, launcher, **options):
    with Study(path, {"a": 1}) as study:
        evaluate = replace(bench.evaluator("search"), study=study, launcher=launcher, **options)
        evaluate(masks)
    return rows(path)


@pytest.fixture(scope="module")
def expected(bench, tmp_path_factory):
    return scored(bench, many(bench), tmp_path_factory.mktemp("one") / "s.sqlite", inline)


def test_the_work_folder_is_the_users_own(crew):
    """What workers are given is pickled, so nobody else may write it, nor read the embeddings."""
    assert stat.S_IMODE(crew.folder.stat().st_mode) == 0o700
    assert crew.folder.stat().st_uid == os.getuid()
    assert (crew.folder / "token").is_file()


def test_three_workers_write_the_bytes_of_one_process(bench, crew, expected, tmp_path):
    done: list[float] = []
    assert len(walks(many(bench))) == 3
    assert scored(bench, many(bench), tmp_path / "s.sqlite", crew, progress=done.append) == expected
    assert sum(done) == pytest.approx(bench.evaluator("search").cost(many(bench)))
    assert not list(crew.folder.glob("*.embeddings"))


def test_a_single_worker_runs_whole_sets_to_the_same_bytes(bench, expected, tmp_path):
    """One worker gets sets as they are, several get the last ones by images."""
    own = Crew(Processes(1, ["cpu"]), spec_of(bench.model, bench.layout), bench.cache_dir)
    assert scored(bench, many(bench), tmp_path / "s.sqlite", own) == expected
    own.close()


def test_who_observes_gets_every_mask_in_order_with_its_embeddings(bench, crew):
    seen: dict[str, list] = {"here": [], "there": []}
    for name, launcher in (("here", inline), ("there", crew)):
        evaluate = replace(bench.evaluator("search"), launcher=launcher)
        evaluate.observe = lambda mask, e, name=name: seen[name].append((mask, e.clone()))
        evaluate(many(bench)[:50])
    for (a, x), (b, y) in zip(seen["here"], seen["there"], strict=True):
        assert a == b
        assert torch.equal(x, y)


def test_constants_of_operator_mean_go_along(bench, crew, tmp_path):
    masks = [Mask.suppress(bench.tower.grid, [head], "mean") for head in bench.tower.grid]
    one = scored(bench, masks, tmp_path / "one.sqlite", inline, means=bench.means)
    assert scored(bench, masks, tmp_path / "three.sqlite", crew, means=bench.means) == one


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_freezes_costs_no_result(bench, crew, expected, tmp_path, number):
    said: list[str] = []
    crew._say = said.append
    crew.muster()  # one that is still loading is given more time

    def hit():
        time.sleep(0.3)
        os.kill(crew.hands[1].process.pid, number)

    striking = threading.Thread(target=hit)
    striking.start()
    assert scored(bench, many(bench), tmp_path / "s.sqlite", crew) == expected
    striking.join()
    scored(bench, many(bench)[:1], tmp_path / "again.sqlite", crew)
    assert any("SIGKILL" in text or "sign of life" in text for text in said)


@pytest.mark.parametrize("fault", [None, signal.SIGKILL])
def test_workers_learn_the_bits_of_one_process(bench, crew, fault):
    """Embeddings and gradients by parts; whoever dies between them costs a forward, and no result."""
    loss = loss_of(bench.objective("search"), bench.tower.device)
    settings = ValueSettings(learn=("temperature", "spectral"), epochs=2, batch=20)
    pixels = bench.evaluator("search").pixels
    anchors = Anchors(pixels, torch.nn.functional.normalize(embeddings_of(bench.tower, pixels), dim=-1), weight=2.0)
    killed: list[int] = []

    def told(ffe):
        if fault and workers is crew and not killed:
            killed.append(crew.hands[0].process.pid)
            os.kill(killed[0], fault)

    found = []
    for workers in (None, crew):
        options = {"anchors": anchors, "workers": workers, "progress": told}
        found.append(learn_values(bench.tower, pixels, loss, settings, bench.moments, **options).mask)
    assert found[0] == found[1] != Mask.identity(bench.tower.grid)
    assert bool(killed) == bool(fault)


def test_a_call_that_fails_three_times_ends_with_the_reason(bench, crew):
    with pytest.raises(HeadwiseError, match=r"Part of a batch failed 3 times on workers.*AttributeError"):
        crew.call(embed_times, ["three"])
    assert crew.call(embed_times, [1, 2, 3, 4]) == [bench.tower.grid.size * times for times in (1, 2, 3, 4)]


def test_runs_with_faults_at_random_end_with_equal_bytes(bench, crew, expected, tmp_path):
    """HEADWISE_CHAOS_RUNS=20 HEADWISE_CHAOS_WORKERS=4 makes it the long one of docs/scale.md."""
    asked = {name: int(os.environ.get(f"HEADWISE_CHAOS_{name}", "0")) for name in ("SEED", "RUNS", "WORKERS")}
    if asked["WORKERS"]:
        crew = Crew(
            Processes(asked["WORKERS"], ["cpu"]), spec_of(bench.model, bench.layout), bench.cache_dir, patience=4.0
        )
    draw, cost = random.Random(asked["SEED"]), bench.evaluator("search").cost(many(bench))
    for run in range(max(1, asked["RUNS"])):
        ended, done = threading.Event(), []

        def strike(ended=ended):
            while not ended.wait(draw.uniform(0.2, 3)):
                os.kill(draw.choice(crew.hands).process.pid, draw.choice([signal.SIGKILL, signal.SIGSTOP]))
                ended.wait(20)

        striking = threading.Thread(target=strike)
        striking.start()
        try:
            assert scored(bench, many(bench), tmp_path / f"{run}.sqlite", crew, progress=done.append) == expected
        finally:
            ended.set()
            striking.join()
        assert sum(done) == pytest.approx(cost)  # nothing that was finished is done again
    if asked["WORKERS"]:
        crew.close()


def test_a_worker_that_gives_no_numbers_is_tried_three_times(bench, crew, tmp_path):
    good, nan = many(bench)[0], [torch.full_like(table, float("nan")) for table in bench.means]
    bad = [Mask.suppress(bench.tower.grid, [head], "mean") for head in bench.tower.grid][:4]
    with Study(tmp_path / "s.sqlite", {"a": 1}) as study:
        evaluate = replace(bench.evaluator("search"), study=study, launcher=crew, means=nan)
        with pytest.raises(HeadwiseError, match=r"failed 3 times .*not finite"):
            evaluate(bad)
        assert study.count() == 0
        evaluate([good])  # the workers are still there
        assert study.count() == 1


def test_a_full_disk_of_a_worker_is_told(bench, crew):
    (crew.folder / f"{crew._files + 1}.embeddings").symlink_to("/dev/full")  # the system's own full disk
    with pytest.raises(HeadwiseError, match="No space left"):
        replace(bench.evaluator("search"), launcher=crew)(many(bench)[:3])


DRIVER = """
import sys
sys.path[:0] = sys.argv[1:3]
import torch
torch.set_num_threads(1)
from test_crew import *
if __name__ == "__main__":
    pairs = read_pairs(sys.argv[3], Silent(), {})
    model = load_model("demo", Machine())
    bench = prepare(model, pairs, whole(pairs), dtype="float32", chunk=4, cache_dir=sys.argv[4])
    crew = Crew(Processes(2, ["cpu"]), spec_of(bench.model, bench.layout), bench.cache_dir)
    print(*(hand.process.pid for hand in crew.hands), flush=True)
    scored(bench, many(bench), sys.argv[5], crew)
"""


def test_a_killed_driver_leaves_no_worker_and_is_continued(bench, crew, expected, tmp_path):
    here = os.path.dirname(__file__)
    pairs = write_pairs(tmp_path / "pairs", IMAGES)
    path = tmp_path / "s.sqlite"
    command = [sys.executable, "-c", DRIVER, here, os.path.dirname(here), pairs, bench.cache_dir, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        try:
            assert driver.stdout is not None
            workers = list(map(int, driver.stdout.readline().split()))
            for _ in range(2400):
                if written(path):
                    break
                time.sleep(0.05)
        finally:
            driver.kill()
    kept = rows(path)
    assert kept
    assert kept == expected[: len(kept)]
    for _ in range(100):
        if not any(_alive(pid) for pid in workers):
            break
        time.sleep(0.1)
    assert not any(_alive(pid) for pid in workers)
    assert scored(bench, many(bench), path, crew) == expected


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split(") ")[-1][0] not in "ZX"
    except OSError:
        return False


# ---- what is refused before anything is run


def refusal(bench, tmp_path, **changes):
    (tmp_path / "token").write_text("x")
    spec = replace(spec_of(bench.model, bench.layout), folder=str(tmp_path), **{"token": "x", **changes})
    with pytest.raises(HeadwiseError) as caught:
        Worker(spec, "cpu")
    return str(caught.value)


def test_a_worker_that_differs_says_how(bench, tmp_path):
    machine = dict(spec_of(bench.model, bench.layout).machine)
    assert "has headwise" in refusal(bench, tmp_path, version="0.0.1")
    assert "other weights" in refusal(bench, tmp_path, weights="0" * 32)
    assert "processor" in refusal(bench, tmp_path, machine={**machine, "processor": "another"})
    assert "--mixed-workers" in refusal(bench, tmp_path, machine={**machine, "torch": "1.0"})
    assert "HEADWISE_CACHE" in refusal(bench, tmp_path, token="y")


def test_a_worker_that_cannot_start_is_told_before_any_work(bench):
    spec = replace(spec_of(bench.model, bench.layout), model="hf:/nowhere")
    with pytest.raises(HeadwiseError, match="nowhere"):
        Crew(Processes(1, ["cpu"]), spec, bench.cache_dir)


def test_a_model_object_cannot_be_loaded_by_workers(bench):
    with pytest.raises(HeadwiseError, match="as an object"):
        load_model(replace(bench.model, source=""), Machine(staff=Staff(workers=2)))


def test_numbers_of_workers():
    assert Staff().count("cpu") == 0
    assert Staff(workers=3).count("cpu") == 3
    with pytest.raises(HeadwiseError, match="a number from 0"):
        Staff(workers=-1)
    with pytest.raises(HeadwiseError, match="is one GPU"):
        Staff(workers=2).count("cuda:0")
    with pytest.raises(HeadwiseError, match="has 0 GPUs"):
        Staff(workers=2).count("cuda")
    with pytest.raises(HeadwiseError, match="--ray"):
        Staff(mixed=True)
    assert np.all(np.diff([Staff(workers=n).count("cpu") for n in (1, 2, 4)]) > 0)
