import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import HEAD, SCALE, planted

from headwise.edits.edit import KINDS, Edit
from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import embed
from headwise.evaluation.layout import plan
from headwise.scoring.losses import captions, loss_of, value_of
from headwise.scoring.objectives import Prototypes
from headwise.scoring.ranking import retrieve
from headwise.search.gated import frozen, gate_rows, under
from headwise.search.gradient import GradientSettings, learn_gates
from headwise.search.parts import Embedder

SHORT = GradientSettings(learning_rate=0.15, batch=16, epochs=3)


def learn(case, operator="uniform", settings=SHORT, loss=None, **options):
    return learn_gates(case.tower, case.images, loss or captions_of(case), operator, settings, **options)


def captions_of(case, **options):
    return captions(case.texts, case.owner, len(case.images), scale=SCALE, **options)


@pytest.fixture(scope="module")
def uniform():
    return planted("uniform")


@pytest.fixture(scope="module")
def zero():
    return planted("zero")


NUMBERED = [name for name, kind in KINDS.items() if kind.keeps is not None]


@pytest.mark.parametrize("letter", NUMBERED)
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_equal_finite_differences(uniform, letter, recompute):
    tower = uniform.tower.cast("cpu", torch.float64)
    images, numbers = uniform.images[:6].double(), torch.arange(6)
    memory = captions(uniform.texts.double(), uniform.owner, 48, scale=SCALE)
    means = [torch.randn(4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(r)) for r in range(3)]

    def loss(gates):
        rows = gate_rows(tower, gates.split([4, 4, 4]), letter, means)
        return value_of(memory, under(tower, images, rows, recompute=recompute), numbers)

    gates = torch.linspace(0.3, 1.0, 12, dtype=torch.float64, requires_grad=True)
    with frozen(tower.parts):
        (gradient,) = torch.autograd.grad(loss(gates), gates)
        step = 1e-6 * torch.eye(12, dtype=torch.float64)
        with torch.no_grad():
            exact = torch.stack([(loss(gates + row) - loss(gates - row)) / 2e-6 for row in step])
    assert torch.allclose(gradient, exact, rtol=1e-5, atol=1e-7)
    assert gradient.abs().max() > 1e-3


@pytest.mark.parametrize("letter", NUMBERED)
def test_embeddings_under_gates_are_those_of_the_engine(uniform, letter):
    tower = uniform.tower
    gates = ((0.0, 1.0, 0.25, 1.0), (1.0, 0.5, 1.0, 0.0), (0.0, 1.0, 1.0, 0.125))
    mask = Mask.gated(tower.grid, gates, letter)
    ((_, expected),) = embed(tower, uniform.images, [mask], plan(tower, dtype="float32"), means=uniform.means)
    with torch.no_grad():
        rows = gate_rows(tower, [torch.tensor(row) for row in gates], letter, uniform.means)
        found = under(tower, uniform.images, rows)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        GradientSettings(form="sigmoid", learning_rate=0.15, epochs=10, batch=16),
        GradientSettings(form="hard_concrete", learning_rate=0.15, epochs=20, batch=16),
        GradientSettings(form="top_k", learning_rate=0.15, k=1, epochs=10, batch=16),
        GradientSettings(form="sigmoid", learning_rate=0.15, epochs=10, batch=16, recompute=True, autocast=True),
    ],
    ids=["sigmoid", "hard concrete", "top-k", "sigmoid in bfloat16"],
)
@pytest.mark.parametrize("operator", ["uniform", "zero"])
def test_every_form_finds_the_head_that_does_harm(request, operator, settings):
    case = request.getfixturevalue(operator)
    found = learn(case, operator, settings)
    assert found.ranking[0] == Head.parse(HEAD)
    assert found.binary.edit(HEAD) == Edit.parse(operator)
    assert found.letter == operator
    assert found.soft.edit(HEAD).gate == found.gates[Head.parse(HEAD)] < 0.5
    assert found.cuts(3)[0] == Mask.suppress(case.tower.grid, [HEAD], operator)
    losses = []
    for mask in (Mask.identity(case.tower.grid), found.soft, found.cuts(1)[0]):
        ((_, embeddings),) = embed(case.tower, case.images, [mask], plan(case.tower, dtype="float32"))
        losses.append(retrieve(embeddings, case.texts, case.owner, scale=SCALE).loss)
    assert losses[1] < losses[0]
    assert losses[2] < losses[0]


def test_the_sigmoid_loss_finds_it_too(zero):
    centred = zero.texts - zero.texts.mean(0)  # a fixed bias needs foreign pairs near cosine 0
    settings = GradientSettings(learning_rate=0.15, epochs=10, batch=16)
    found = learn(zero, "zero", settings, captions_of(replace(zero, texts=centred), loss="sigmoid", bias=-10.0))
    assert found.ranking[0] == Head.parse(HEAD)


@pytest.mark.parametrize("batch", [2, 16])
def test_images_that_need_each_other_stay_in_one_batch(uniform, batch, monkeypatch):
    labels = np.arange(48) % 3
    labels[:2] = 2  # 15, 15 and 18 images: two classes have a group of three
    loss = loss_of(Prototypes(torch.empty(3, 0), labels, scale=SCALE))
    batches, embed_batch = [], Embedder.__call__
    monkeypatch.setattr(
        Embedder,
        "__call__",
        lambda self, source, numbers, edits: batches.append(numbers) or embed_batch(self, source, numbers, edits),
    )
    learn(uniform, settings=replace(SHORT, batch=batch, epochs=1, holdout=0.0), loss=loss)
    assert all(len(numbers) for numbers in batches)
    assert sorted(int(i) for numbers in batches for i in numbers) == list(range(48))
    for unit in loss.units:
        assert sum(set(unit) <= set(numbers.tolist()) for numbers in batches) == 1


def test_the_operator_mean_finds_it_too():
    case = planted("mean")
    found = learn(case, "mean", GradientSettings(learning_rate=0.15, epochs=10, batch=16), means=case.means)
    assert found.ranking[0] == Head.parse(HEAD)


def test_a_penalty_on_kept_heads_suppresses_more_and_a_negative_one_fewer(uniform):
    settings = replace(SHORT, epochs=6, holdout=0.0)
    kept = [
        sum(learn(uniform, settings=replace(settings, penalty=penalty)).gates.values()) for penalty in (-5.0, 0.0, 5.0)
    ]
    assert kept[0] > kept[1] > kept[2]


def test_the_model_is_left_as_it_was_and_no_parameter_is_trained(uniform):
    parts = uniform.tower.parts
    before = {name: value.clone() for name, value in parts.state_dict().items()}
    parts[0].train()
    next(parts.parameters()).requires_grad_(False)
    wanted = [parameter.requires_grad for parameter in parts.parameters()]
    try:
        learn(uniform)
        assert [parameter.requires_grad for parameter in parts.parameters()] == wanted
        assert parts[0].training
        assert all(parameter.grad is None for parameter in parts.parameters())
        assert all(torch.equal(value, before[name]) for name, value in parts.state_dict().items())
    finally:
        parts.eval().requires_grad_(True)


def test_dropout_of_a_model_in_training_mode_stays_off(uniform):
    attention = uniform.tower.blocks[0].module.self_attn
    expected = learn(uniform)
    attention.dropout = 0.5
    uniform.tower.parts.train()
    try:
        assert learn(uniform) == expected
    finally:
        attention.dropout = 0.0
        uniform.tower.parts.eval()


@pytest.mark.parametrize("form", ["sigmoid", "hard_concrete", "top_k"])
def test_the_same_seed_gives_the_same_gates_and_another_seed_others(uniform, form):
    settings = replace(SHORT, form=form, k=2 if form == "top_k" else None)
    torch.manual_seed(1)
    first = learn(uniform, settings=settings)
    torch.manual_seed(2)
    assert learn(uniform, settings=settings) == first
    assert learn(uniform, settings=replace(settings, seed=9)).history != first.history


def test_more_memory_saved_changes_no_gate(uniform):
    plain, saved = learn(uniform), learn(uniform, settings=replace(SHORT, recompute=True))
    assert np.allclose(list(plain.gates.values()), list(saved.gates.values()), atol=1e-5)
    assert saved.spent > plain.spent


def test_it_stops_when_the_held_out_loss_rises_and_keeps_the_best_epoch(uniform):
    settings = replace(SHORT, epochs=40, learning_rate=2.0, penalty=20.0, patience=2)  # the penalty suppresses all
    found = learn(uniform, settings=settings)
    assert len(found.history) == found.best + 2 + 1 < 40
    assert min(found.history, key=lambda epoch: epoch.held_out) == found.history[found.best - 1]


def test_progress_adds_up_to_what_was_spent(uniform):
    done = []
    found = learn(uniform, progress=done.append)
    assert sum(done) == pytest.approx(found.spent)


# ---- checkpoints

KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = sys.argv[2:]
from planted import SCALE, planted
from headwise.scoring.losses import captions
from headwise.search import gradient, training

write, count = training.write_state, 0

def write_then_die(*arguments):
    global count
    write(*arguments)
    count += 1
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)

training.write_state = write_then_die
case = planted("uniform")
settings = gradient.GradientSettings(form="hard_concrete", batch=16, epochs=5)
loss = captions(case.texts, case.owner, len(case.images), scale=SCALE)
gradient.learn_gates(case.tower, case.images, loss, "uniform", settings, checkpoint=Path(sys.argv[1]))
"""


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(uniform, tmp_path):
    settings = GradientSettings(form="hard_concrete", batch=16, epochs=5)
    whole = learn(uniform, settings=settings, checkpoint=tmp_path / "whole.safetensors")
    here = Path(__file__).parent
    killed = tmp_path / "killed.safetensors"
    command = [sys.executable, "-c", KILLED, str(killed), str(here), str(here.parent)]
    result = subprocess.run(command, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert result.returncode == -signal.SIGKILL
    assert killed.read_bytes() != (tmp_path / "whole.safetensors").read_bytes()
    done = []
    again = learn(uniform, settings=settings, checkpoint=killed, progress=done.append)
    assert again == whole
    assert sum(done) == pytest.approx(whole.spent * 3 / 5)  # two of the five epochs were not repeated
    assert killed.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["killed.safetensors", "whole.safetensors"]


def test_a_finished_checkpoint_answers_without_work(uniform, tmp_path):
    path, done = tmp_path / "gates.safetensors", []
    found = learn(uniform, checkpoint=path)
    assert learn(uniform, checkpoint=path, progress=done.append) == found
    assert done == []


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(uniform, tmp_path):
    path = tmp_path / "gates.safetensors"
    learn(uniform, checkpoint=path)
    with pytest.raises(HeadwiseError, match="another run"):
        learn(uniform, settings=replace(SHORT, seed=4), checkpoint=path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(HeadwiseError, match="damaged"):
        learn(uniform, checkpoint=path)


# ---- bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "linear"}, "one of: sigmoid"),
        ({"form": "top_k"}, "k is None"),
        ({"form": "top_k", "k": 3, "penalty": 1.0}, "penalty"),
        ({"k": 3}, "belongs to top_k"),
        ({"temperature": (1.0, 0.0)}, "temperature"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"batch": 1}, "batch"),
        ({"holdout": 1.0}, "holdout"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(HeadwiseError, match=message):
        GradientSettings(**settings)


def test_an_edit_that_is_no_gate_is_refused(uniform):
    for operator in ("keys", "scale(1.5)", "temperature(1.5)", "uniform(0.5)", "uniform+zero"):
        with pytest.raises(HeadwiseError, match=r"has none\. Use one of: zero, mean, "):
            learn(uniform, operator)


def test_bad_input_is_refused_with_a_reason(uniform):
    with pytest.raises(HeadwiseError, match="only 12 heads"):
        learn(uniform, settings=GradientSettings(form="top_k", k=12))
    with pytest.raises(HeadwiseError, match="mean outputs"):
        learn(uniform, "mean")
    with pytest.raises(HeadwiseError, match="about 48 images, but there are 47"):
        learn(replace(uniform, images=uniform.images[:47]), loss=captions_of(uniform))
    broken = replace(uniform, images=uniform.images * float("nan"))
    with pytest.raises(HeadwiseError, match="not finite"):
        learn(broken)
    few = replace(uniform, images=uniform.images[:2], texts=uniform.texts[:4], owner=uniform.owner[:4])
    with pytest.raises(HeadwiseError, match="cannot be divided"):
        learn(few)
