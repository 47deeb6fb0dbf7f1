"""Every option is checked before data are read: with pairs that do not exist, the option's own error comes first."""

from pathlib import Path

import pytest

COMMANDS = {
    "refine": ["PAIRS", "-o", "OUT"],
    "sweep": ["PAIRS"],
    "evaluate": ["PAIRS"],
    "explain": ["PAIRS", "-o", "OUT"],
    "compare": ["PAIRS", "-o", "OUT"],
    "front": ["PAIRS", "-o", "OUT"],
    "transfer": ["--mask", "L4.H0=zero", "--on", "PAIRS", "-o", "OUT"],
}
EVERYWHERE = [
    (["--dtype", "float16"], "is not a precision"),
    (["--device", "abacus"], "is not a device"),
    (["--chunk", "0"], "at least 1"),
    (["--cache-size", "12XB"], "12XB"),
    (["--image-size", "0"], "image size"),
    (["--interpolation", "cubic"], "bicubic"),
    (["--resize-mode", "fit"], "shortest"),
    (["--context-length", "0"], "context"),
    (["--mean", "a,b"], "mean"),
    (["--std", "0"], "standard deviation"),
    (["--fitness", "accuracy"], "is not a fitness"),
    (["--templates", "none"], "templates"),
    (["--class-names", "none"], "class names"),
    (["--distractors", "none"], "distractors file none cannot be read"),
    (["--equal-captions", "both"], "shared or own"),
]
SPLIT = [(["--split-by", "row"], "Cannot split by 'row'"), (["--seed", "-1"], "from 0")]
SEARCH = [
    (["--operator", "nil"], "is not an edit"),
    (["--level", "0"], "between 0 and 1"),
    (["--budget", "0"], "above 0"),
    (["--budget", "nan"], "above 0"),
    (["--max-minutes", "0"], "above 0"),
    (["--max-heads", "0"], "at least 1"),
    (["--max-heads", "37"], "has 36 heads"),
]
OWN = {
    "refine": [
        *SPLIT,
        *SEARCH,
        (["--budget", "6"], "Give at least --budget 7"),
        (["--budget", "9", "--keep-domain", "PAIRS"], "Give at least --budget 11"),
        (["--operator", ""], "No edit"),
        (["--strategy", "bp", "--gates", "soft"], "hard_concrete"),
        (["--strategy", "bp", "--learning-rate", "0"], "learning_rate"),
        (["--strategy", "bp", "--batch", "0"], "batch"),
        (["--strategy", "bp", "--penalty", "nan"], "penalty"),
        (["--patience", "0"], "patience"),
        (["--tournament", "0"], "tournament"),
        (["--elites", "-1"], "elites"),
        (["--width", "99"], "has 36 heads"),
        (["--rungs", "lora"], "headwise compare --strategy"),
        (["--rungs", "mask,nothing"], "'nothing' cannot be learned"),
        (["--rungs", "mask,projection", "--budget", "30"], "Give at least --budget 35"),
        (["--rungs", "mask", "--anchor", "PAIRS"], "no such rung is asked for"),
        (["--rungs", "scale", "--anchor-weight", "2"], "give some with --anchor"),
        (["--rungs", "scale", "--anchor", "PAIRS", "--anchor-weight", "0"], "above 0"),
        (["--rungs", "scale", "--anchor", "PAIRS", "--budget", "7"], "Give at least --budget 9"),
        (["--keep-domain", "PAIRS", "--max-loss", "-1"], "between 0 and 100"),
    ],
    "sweep": [(["--operator", "zero,mean"], "'zero,mean' is not an edit"), (["--operator", "nil"], "is not an edit")],
    "evaluate": [
        (["--mask", "L99.H0=zero"], "L99"),
        (["--mask", "L1.H0=nil"], "nil"),
        (["--mask", "no-such-mask"], "no-such-mask"),
        (["--mask", "L1.H0=mean"], "its mean output"),
        (["--per-query", "."], "is a folder"),
        (["--per-query", "/dev/null/ranks.parquet"], "/dev/null is a file"),
    ],
    "explain": [
        *SPLIT,
        (["--operator", "nil"], "is not an edit"),
        (["--most-images", "1"], "too few"),
        (["--mask", "L99.H0=zero"], "L99"),
    ],
    "compare": [
        *SPLIT,
        *SEARCH,
        (["--budget", "4"], "Give at least --budget 7"),
        (["--repeats", "0"], "repeats is 0"),
        (["--epochs", "0"], "epochs"),
        (["--strategy", ","], "No strategy"),
    ],
    "front": [
        *SPLIT,
        *SEARCH,
        (["--budget", "5"], "Give at least --budget 8"),
        (["--population", "1"], "population"),
        (["--max-loss", "1"], "--keep-domain"),
        (["--size", "3"], "Write --max-heads"),
    ],
    "transfer": [*SPLIT, (["--mask", "L99.H0=zero"], "L99")],
}
CASES = [(command, *case) for command in COMMANDS for case in (*EVERYWHERE, *OWN[command])]


@pytest.mark.parametrize(
    ("command", "options", "said"),
    CASES,
    ids=lambda value: " ".join(value).strip("- ") if isinstance(value, list) else None,
)
def test_the_option_is_refused_before_the_data_are_missed(run, tmp_path, command, options, said):
    there = {"PAIRS": tmp_path / "there-are-no-such-pairs.csv", "OUT": tmp_path / "out"}
    code, _, err = run(command, "demo", *(there.get(a, a) for a in (*COMMANDS[command], *options)))
    said_all = " ".join(err.split())
    assert code in (1, 2)
    assert said in said_all
    assert "no-such-pairs" not in said_all
    assert not Path(there["OUT"]).exists()


def test_with_no_such_mistake_the_data_are_missed(run, tmp_path):
    for command, arguments in COMMANDS.items():
        there = {"PAIRS": tmp_path / "there-are-no-such-pairs.csv", "OUT": tmp_path / "out"}
        code, _, err = run(command, "demo", *(there.get(a, a) for a in arguments))
        assert code == 1
        assert "no-such-pairs" in "".join(err.split()), command
