"""docs/results.md: every method, every edit and every transfer, on the packaged model and all its target domains.

    python recipes/demo/prepare.py all --out DATA
    python benchmarks/results.py --data DATA --work WORK          continues where it stopped
    python benchmarks/results.py --data DATA --work WORK --target freehand --target pixel

WORK keeps each target's pairs as they were cut first, so that targets can have different sizes. The committed page:

    python benchmarks/results.py --data DATA --work WORK --pick 150 --test 500 --budget 60 --search 200 \
        --target freehand --target openmoji --target gcompris
    python benchmarks/results.py --data DATA --work WORK --pick 150 --test 500 --budget 60 --search 100

The targets are the drawing styles that the packaged model never saw; `pretrain_val` is new pictures of the styles
that it was trained on, and shows what a change does to what the model could do before.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as parquet
import typer

from headwise.cli.telling import Terminal
from headwise.edits.mask import Mask
from headwise.files import write_files
from headwise.jobs.compare import compare
from headwise.jobs.steps.contest_settings import CompareSettings
from headwise.jobs.steps.opening import Machine, load_model
from headwise.jobs.steps.settings import Settings
from headwise.jobs.transfer import transfer
from headwise.plain import markdown
from headwise.reports.compare import comparison_table, findings
from headwise.reports.transfer import best_sentence
from headwise.reports.words import change, interval, p_value, points
from headwise.search.gradient import GradientSettings

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("freehand", "openmoji", "noto", "pixel", "openclipart", "gcompris")
OPERATORS = ("zero", "mean", "uniform", "cls", "self", "cls_row")
DOMAIN = "pretrain_val"


def take(table: pa.Table, most: dict[str, int]) -> pa.Table:
    """At most so many rows of every split, the same ones whatever the order of the rows."""
    order = sorted(range(len(table)), key=lambda i: hashlib.sha256(table["image"][i]["bytes"].as_py()).digest())
    left, kept = dict(most), []
    for i in order:
        name = table["split"][i].as_py()
        if left[name] > 0:
            left[name] -= 1
            kept.append(i)
    return table.take(sorted(kept))


def target_pairs(data: Path, work: Path, target: str, most: dict[str, int]) -> Path:
    """A target's pairs as recipes/demo/package_pairs.py packages them, cut to size."""
    path = work / "pairs" / f"{target}.parquet"
    if not path.exists():
        whole = work / "packaged" / target
        if not (whole / "pairs.parquet").exists():
            script = ROOT / "recipes" / "demo" / "package_pairs.py"
            call = [sys.executable, script, "--data", data, "--target", target, "--out", whole]
            subprocess.run([*map(str, call)], check=True)
        write(path, take(parquet.read_table(whole / "pairs.parquet"), most))
    return path


def trained_pairs(data: Path, work: Path, most: int) -> Path:
    """New pictures of the styles that the model was trained on, each with its first caption."""
    import numpy as np
    from PIL import Image

    path = work / "pairs" / f"{DOMAIN}.parquet"
    if not path.exists():
        lines = (data / "meta.jsonl").read_text(encoding="utf-8").splitlines()
        pictures = np.load(data / "images.npy", mmap_mode="r")
        indices = json.loads((data / "splits.json").read_text())["splits"][DOMAIN]
        rows = []
        for i in sorted(indices, key=lambda i: hashlib.sha256(str(i).encode()).digest())[:most]:
            stream = io.BytesIO()
            Image.fromarray(pictures[i]).save(stream, "PNG")
            captions = json.loads(lines[i])["captions"]
            rows.append({"image": {"bytes": stream.getvalue(), "path": f"{i}.png"}, "captions": captions[:1]})
        write(path, pa.Table.from_pylist(rows))
    return path


def write(path: Path, table: pa.Table) -> None:
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    write_files(path.parent, {path.name: stream.getvalue()})


def best_masks(results: list[dict], work: Path) -> list[Mask]:
    """Of every target the best mask by search, knowing where it was found (identity is left out)."""
    model = load_model("demo", Machine())
    masks = []
    for one in results:
        row = next(row for row in one["rows"] if row["method"] == "ga")
        text = row["masks_by_search"][0]
        if text != "identity":
            mask = Mask.parse(model.tower.grid, text)
            data = {"source": one["data"]["source"], "hash": one["data"]["hash"], "split": one["data"]["split_hash"]}
            masks.append(mask.with_provenance(found_by="ga", data=data))
    return masks


# ---- the page


def page(targets: list[str], found: dict[str, dict], operators: dict[str, dict], moved: dict, said: str) -> str:
    first = found[targets[0]]
    lines = [
        "# Results",
        "",
        "Made by `benchmarks/results.py` (its head has the commands); nothing here is typed by hand.",
        "",
        said,
        "",
        "## In short",
        "",
        *summary(targets, found, operators),
        "",
        "## Every method, on every target",
        "",
        "What the columns mean: [results-format.md](results-format.md#comparejson). *Picked*: with the pick split's choice "
        "between the method's result and the unchanged model; *by search*: without it. p is not corrected for the "
        "number of rows or targets.",
    ]
    for target in targets:
        one = found[target]
        sizes = one["data"]["splits"]
        lines += [
            "",
            f"### {target}",
            "",
            f"{sizes['search']:,} images to search, {sizes['pick']:,} to pick, {sizes['test']:,} to test.",
            "",
            f"![{target}](results/{target}.png)",
            "",
            comparison_table(one),
            "",
            *(f"- {sentence}" for sentence in findings(one)),
        ]
    lines += [
        "",
        "## Every edit, on every target",
        "",
        "Greedy search of at most three heads with each edit; change of mean recall on the test split in points, "
        "picked (95 % interval) / by search.",
        "",
        *operators_table(targets, operators),
        "",
        "## Transfer",
        "",
        "The best mask by AAT-GA's search (seed 0) of every target, on the test splits of all of them.",
        "",
        "![Masks × targets](results/transfer.png)",
        "",
        *transfer_table(moved),
        "",
        best_sentence(moved),
        "",
        f"Model: `{first['model']['name']}` ({len(first['model']['layers'])} layers), precision "
        f"{first['settings']['dtype']}, {first['settings']['device']}.",
    ]
    return "\n".join(lines) + "\n"


def summary(targets: list[str], found: dict[str, dict], operators: dict[str, dict]) -> list[str]:
    """Sentences that follow from the tables."""
    out = []
    sure = {t: [r["method"] for r in found[t]["rows"][2:] if r["test"]["interval"][0] > 0] for t in targets}
    heads = {t: [m for m in names if m not in ("lora", "adapter", "layernorm", "logit")] for t, names in sure.items()}
    shown, none = [t for t in targets if heads[t]], [t for t in targets if not heads[t]]
    if shown:
        out.append(
            "- Suppressing heads helps, interval above 0, on "
            + "; ".join(f"{t} ({', '.join(heads[t])})" for t in shown)
            + "."
        )
    if none:
        out.append(f"- On {', '.join(none)} no mask's interval lies above 0: an improvement is not shown there.")
    for target in targets:
        rows = found[target]["rows"][2:]
        ours = max((r for r in rows if r["heads"] is not None), key=lambda r: r["test"]["delta"])
        theirs = max((r for r in rows if r["heads"] is None), key=lambda r: r["test"]["delta"])
        out.append(
            f"- {target}: best mask {ours['method']} {change(ours['test']['delta'])} points "
            f"({interval(ours['test']['interval'])}), best baseline {theirs['method']} {change(theirs['test']['delta'])} "
            f"({interval(theirs['test']['interval'])}); on {DOMAIN} {change(ours['keep_domain'][0]['delta'])} and "
            f"{change(theirs['keep_domain'][0]['delta'])}."
        )
    means = {}
    for name in OPERATORS:
        deltas = [
            row["test"]["delta"]
            for t in targets
            for row in operators[t]["rows"]
            if row["operator"] == name and row["method"] == "greedy"
        ]
        means[name] = sum(deltas) / len(deltas)
    ranked = sorted(means, key=lambda name: -means[name])
    out.append(
        "- Edits, mean picked change over the targets: "
        + ", ".join(f"{name} {change(means[name])}" for name in ranked)
        + "."
    )
    return out


def operators_table(targets: list[str], operators: dict[str, dict]) -> list[str]:
    lines = ["| edit | " + " | ".join(targets) + " |", "|---|" + "---:|" * len(targets)]
    for name in OPERATORS:
        cells = []
        for target in targets:
            row = next(r for r in operators[target]["rows"] if (r["method"], r["operator"]) == ("greedy", name))
            test = row["test"]
            cells.append(
                f"{change(test['delta'])} ({interval(test['interval'])}) / {change(row['test_by_search']['delta'])}"
            )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def transfer_table(moved: dict) -> list[str]:
    names = [Path(one["source"]).stem for one in moved["data"]]
    lines = ["| found on | mask | " + " | ".join(names) + " |", "|---|---|" + "---:|" * len(names)]
    lines.append("| | identity | " + " | ".join(points(one["score"]) + " %" for one in moved["data"]) + " |")
    for row in moved["masks"]:
        cells = [f"{change(c['delta'])} ({interval(c['interval'])}; p {p_value(c['p'])})" for c in row["test"]]
        lines.append(f"| {Path(row['found_on']).stem} | {markdown(row['mask'])} | " + " | ".join(cells) + " |")
    return lines


def main(
    data: Annotated[Path, typer.Option(help="What recipes/demo/prepare.py made.")],
    work: Annotated[Path, typer.Option(help="Where the studies are kept.")],
    target: Annotated[list[str] | None, typer.Option(help="Of the targets; by default all.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of every method that draws random numbers.")] = 5,
    budget: Annotated[float, typer.Option(help="Most FFE of a search, sweep and all, or a training.")] = 60.0,
    search: Annotated[int, typer.Option(help="Most images to search on.")] = 300,
    pick: Annotated[int, typer.Option(help="Most images to pick on.")] = 200,
    test: Annotated[int, typer.Option(help="Most images to test on.")] = 800,
    out: Annotated[Path, typer.Option(help="Where the page and its pictures go.")] = ROOT / "docs",
) -> None:
    targets = list(target or TARGETS)
    reporter = Terminal()
    most = {"search": search, "pick": pick, "test": test}
    old = trained_pairs(data, work, 300)
    found: dict[str, dict] = {}
    operators: dict[str, dict] = {}
    for name in targets:
        pairs = target_pairs(data, work, name, most)
        settings = CompareSettings(repeats=seeds, search=Settings(budget=budget, gradient=GradientSettings(epochs=20)))
        found[name] = compare("demo", pairs, work / "compare" / name, settings=settings, keep=[old], reporter=reporter)
        only = CompareSettings(strategies=("greedy",), search=Settings(operators=OPERATORS, max_heads=3, controls=2))
        operators[name] = compare("demo", pairs, work / "operators" / name, settings=only, reporter=reporter)
    sources = [target_pairs(data, work, name, most) for name in targets]
    moved = transfer("demo", best_masks(list(found.values()), work), sources, work / "transfer", reporter=reporter)
    said = (
        f"The packaged model on {len(targets)} drawing styles that it never saw (how many images: with each); {seeds} "
        f"seeds; at most {budget:g} FFE for a search, its sweep included, or a training. "
        f"`{DOMAIN}`: 300 new pictures of the styles that it was trained on."
    )
    pictures = {f"{name}.png": (work / "compare" / name / "compare.png").read_bytes() for name in targets}
    pictures["transfer.png"] = (work / "transfer" / "transfer.png").read_bytes()
    write_files(out / "results", pictures)
    write_files(out, {"results.md": page(targets, found, operators, moved, said)})


if __name__ == "__main__":
    typer.run(main)
