"""`--dtype auto` is decided by timed products: kept in the cache, printed, and settled for a study that goes on."""

import pytest
import torch
from conftest import write_pairs

from headwise.errors import HeadwiseError
from headwise.evaluation.fingerprints import recorded
from headwise.evaluation.layout import plan
from headwise.evaluation.precision import GAIN, Rates, faster, measured, timed
from headwise.jobs.steps.bench import precision, prepare
from headwise.jobs.steps.opening import Machine, load_model, read_pairs, whole
from headwise.jobs.steps.progress import Silent


class Heard(Silent):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def test_a_gain_too_small_to_notice_costs_no_digits():
    assert Rates(100.0, 99.0 * GAIN).dtype == "float32"
    assert Rates(100.0, 101.0 * GAIN).dtype == "bfloat16"


def test_both_precisions_are_timed_and_no_seed_is_used_up():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    rates = timed(64, 32, 128, seconds=0.01)
    assert min(rates.float32, rates.bfloat16) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_what_was_timed_is_kept_for_this_number_of_threads(tower, tmp_path):
    first = measured(tower, tmp_path)
    assert measured(tower, tmp_path) == first
    (path,) = (tmp_path / "precision").iterdir()
    torch.set_num_threads(2)
    measured(tower, tmp_path)
    torch.set_num_threads(1)
    assert len(list((tmp_path / "precision").iterdir())) == 2
    path.write_bytes(path.read_bytes()[:-2])
    assert min(measured(tower, tmp_path).float32, 1) > 0  # timed again, and whole again
    assert measured(tower, tmp_path) == measured(tower, tmp_path)


def test_the_plan_takes_what_is_faster(tower, tmp_path):
    chosen = faster(tower, "cpu", tmp_path)
    assert plan(tower, cache_dir=tmp_path).dtype == chosen.dtype == measured(tower, tmp_path).dtype
    assert "GFLOP/s" in chosen.why


def test_a_study_that_goes_on_keeps_its_precision_whatever_the_timing_says(tmp_path):
    pairs, model = read_pairs(write_pairs(tmp_path / "pairs", 8), Silent(), {}), load_model("demo", Machine())
    options = {"study": tmp_path / "study.sqlite", "cache_dir": tmp_path / "cache"}
    for given in ("bfloat16", "float32"):
        options["study"] = tmp_path / f"{given}.sqlite"
        prepare(model, pairs, whole(pairs), dtype=given, **options).study.close()
        heard = Heard()
        bench = prepare(model, pairs, whole(pairs), reporter=heard, **options)
        bench.study.close()
        assert bench.layout.dtype == recorded(options["study"])["precision"]["dtype"] == given
        assert any(f"Precision {given} on cpu (as this study did before)" in text for text in heard.said)


def test_an_unknown_precision_is_refused_before_anything_is_timed(tower, tmp_path):
    with pytest.raises(HeadwiseError, match="not a precision"):
        precision(tower, "int8", "cpu", None, tmp_path)
    assert not list(tmp_path.iterdir())
