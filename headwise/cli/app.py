"""The command line: parse, call, print."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from headwise.cli import compare, front, look
from headwise.cli.options import (
    Aim,
    CheckOption,
    Columns,
    DeviceOption,
    JsonOption,
    KeepOption,
    ModelArgument,
    OneOperatorOption,
    OperatorOption,
    OutOption,
    PairsArgument,
    SplitColumns,
    Where,
    given,
    grouped,
    machine,
    names,
)
from headwise.errors import HeadwiseError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find the attention heads that hurt a CLIP image encoder on your pairs, suppress them, prove that it helped.",
)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if show:
        from headwise import __version__

        print(__version__)
        raise typer.Exit


@app.command()
@grouped
def refine(
    model: ModelArgument,
    pairs: PairsArgument,
    out: OutOption,
    operator: OperatorOption = "uniform",
    strategy: Annotated[
        str, typer.Option("--strategy", help="Searches after the sweep: greedy, genetic, screened, taylor, bp.")
    ] = "greedy,genetic",
    no_sweep: Annotated[
        bool, typer.Option("--no-sweep", help="Skip the sweep: first-order scores rank the heads (one gradient pass).")
    ] = False,
    budget: Annotated[float, typer.Option("--budget", help="Most FFE (passes of the whole tower) for AAT-GA.")] = 200.0,
    max_heads: Annotated[int | None, typer.Option("--max-heads", help="Most heads to suppress.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the splits, searches, controls and statistics.")] = 0,
    split_by: Annotated[str, typer.Option("--split-by", help="auto, given, group or image.")] = "auto",
    population: Annotated[int | None, typer.Option(help="AAT-GA: masks per generation.")] = None,
    generations: Annotated[int | None, typer.Option(help="AAT-GA: most generations.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="AAT-GA: generations without improvement before it stops.")
    ] = None,
    tournament: Annotated[int | None, typer.Option(help="AAT-GA: masks a tournament compares.")] = None,
    elites: Annotated[int | None, typer.Option(help="AAT-GA: best masks that survive unchanged.")] = None,
    flip: Annotated[float | None, typer.Option(help="AAT-GA: chance of every head to flip.")] = None,
    keep_soft: Annotated[bool, typer.Option("--keep-soft", help="AAT-BP: soft gates are a finalist too.")] = False,
    gates: Annotated[str | None, typer.Option(help="AAT-BP: sigmoid, hard_concrete or top_k.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AAT-BP: of Adam.")] = None,
    epochs: Annotated[int | None, typer.Option(help="AAT-BP: most passes over the search split.")] = None,
    batch: Annotated[int | None, typer.Option(help="AAT-BP: images a step.")] = None,
    penalty: Annotated[float | None, typer.Option(help="AAT-BP: weight of the share of heads kept.")] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="AAT-BP: activation checkpointing, less memory for more time.")
    ] = False,
    autocast: Annotated[bool, typer.Option("--autocast", help="AAT-BP: run the tower in bfloat16.")] = False,
    keep_domain: KeepOption = None,
    max_loss: Annotated[
        float | None, typer.Option("--max-loss", help="Most points a kept domain may lose on its pick split; 0.5.")
    ] = None,
    race: Annotated[
        bool, typer.Option("--race", help="Greedy: drop candidates on growing subsets once they cannot win.")
    ] = False,
    width: Annotated[int | None, typer.Option("--width", help="Greedy: heads that each step tries.")] = None,
    finalists: Annotated[int, typer.Option(help="Masks that the pick split compares with identity.")] = 12,
    controls: Annotated[int, typer.Option(help="Random masks on the test split.")] = 20,
    *,
    columns: SplitColumns,
    aim: Aim,
    where: Where,
) -> None:
    """The main job: find harmful heads, prove it on held-out pairs, write the refined model.

    Example: headwise refine hf:openai/clip-vit-base-patch32 pairs.csv -o refined/
    """
    from headwise.cli import console
    from headwise.jobs.steps.settings import Settings
    from headwise.jobs.verbs import refine as run
    from headwise.search.racing import RaceSettings

    asked = {
        "population": population,
        "generations": generations,
        "patience": patience,
        "tournament": tournament,
        "elites": elites,
        "flip": flip,
    }
    if gates == "top_k" and max_heads is None:
        raise HeadwiseError("--gates top_k learns which heads to suppress of a given number; give it with --max-heads.")
    learned = {
        "form": gates,
        "learning_rate": learning_rate,
        "epochs": epochs,
        "batch": batch,
        "penalty": penalty,
        "k": max_heads if gates == "top_k" else None,
    }
    chosen = set(names(strategy))
    if given(asked) and not chosen & {"genetic", "front"}:
        raise HeadwiseError(f"--{', --'.join(given(asked))}: about AAT-GA; add genetic to --strategy.")
    if "bp" not in chosen and (given(learned) or keep_soft or recompute or autocast):
        raise HeadwiseError(
            "--gates, --learning-rate, --epochs, --batch, --penalty, --keep-soft, --recompute and --autocast are about "
            "AAT-BP; add bp to --strategy."
        )
    if max_loss is not None and not keep_domain:
        raise HeadwiseError("--max-loss limits what a kept domain may lose; give one with --keep-domain.")
    if (race or width is not None) and "greedy" not in chosen:
        raise HeadwiseError("--race and --width are about the greedy search; add greedy to --strategy.")
    base = Settings()
    settings = replace(
        base,
        **given({"max_loss": max_loss, "width": width, "race": RaceSettings(seed=seed) if race else None}),
        operators=names(operator),
        strategies=names(strategy),
        sweep=not no_sweep,
        genetic=replace(base.genetic, budget=budget, **given(asked)),
        gradient=replace(base.gradient, recompute=recompute, autocast=autocast, **given(learned)),
        keep_soft=keep_soft,
        max_heads=max_heads,
        finalists=finalists,
        controls=controls,
        seed=seed,
    )
    found = run(
        model,
        pairs,
        out,
        settings=settings,
        goal=aim.goal,
        machine=where.machine,
        split_by=split_by,
        keep=keep_domain or (),
        reporter=where.reporter,
        **columns.keywords,
    )
    if where.as_json:
        console.print_json(found.results)
    else:
        console.print_refined(found.results, out)


@app.command()
def demo(
    out: OutOption = Path("demo-out"),
    operator: OperatorOption = "uniform",
    seed: Annotated[int, typer.Option("--seed", help="Of the searches, controls and statistics.")] = 0,
    budget: Annotated[float, typer.Option("--budget", help="Most FFE for AAT-GA.")] = 100.0,
    as_json: JsonOption = False,
) -> None:
    """The main job on the packaged model and pairs: a few minutes on two cores."""
    from headwise.cli import console
    from headwise.jobs.steps.settings import Settings
    from headwise.jobs.verbs import refine as run

    base = Settings()
    settings = replace(base, operators=names(operator), seed=seed, genetic=replace(base.genetic, budget=budget))
    reporter = console.Terminal(quiet=as_json)
    found = run("demo", "demo", out, settings=settings, reporter=reporter, machine=machine("auto", "cpu", None))
    if as_json:
        console.print_json(found.results)
    else:
        console.print_refined(found.results, out)


@app.command()
@grouped
def sweep(
    model: ModelArgument,
    pairs: PairsArgument,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for sweep.json and heads.png.")] = None,
    operator: OneOperatorOption = "uniform",
    *,
    columns: Columns,
    aim: Aim,
    where: Where,
    taylor: Annotated[
        bool, typer.Option("--taylor", help="First-order scores beside the sweep, from one gradient pass.")
    ] = False,
) -> None:
    """The effect of suppressing every single head, on all the pairs given."""
    from headwise.cli import console
    from headwise.jobs.measure import sweep as run
    from headwise.report import words

    _, results = run(
        model,
        pairs,
        out,
        operator=operator,
        goal=aim.goal,
        taylor=taylor,
        machine=where.machine,
        reporter=where.reporter,
        **columns.keywords,
    )
    if where.as_json:
        console.print_json(results)
        return
    heads = sorted(results["sweep"]["heads"], key=lambda head: -head["delta"])
    shown = heads if len(heads) <= 12 else [*heads[:8], *heads[-4:]]
    headings, first = ("head", "points", "p (max-T)"), words.first_order_scores(results["first_order"])
    rows = [(h["head"], words.change(h["delta"]), words.p_value(h["p_max_t"])) for h in shown]
    if first:
        headings = (*headings, "loss falls by", "first order")
        rows = [
            (*row, f"{-h['loss_delta']:+.4f}", f"{first[h['head']]:+.4f}") for row, h in zip(rows, shown, strict=True)
        ]
    measure = words.metric_name(words.main_metric(results, results["sweep"]["identity"]))
    title = f"Change of {measure} when one head is suppressed ({operator}), {len(heads)} heads, most harmful first"
    console.print_table(title, headings, rows)
    if first:
        console.out.print(words.first_order_agreement(results["first_order"]), highlight=False, soft_wrap=True)


@app.command()
@grouped
def evaluate(
    model: ModelArgument,
    pairs: Annotated[list[str], typer.Argument(help="One or more sources; see headwise data --help.")],
    mask: Annotated[
        str | None, typer.Option("--mask", help="A mask's folder, or text such as zero:L10.H3,L11.H0.")
    ] = None,
    only_split: Annotated[
        str | None, typer.Option("--only-split", help="Evaluate this split of the source alone.")
    ] = None,
    per_query: Annotated[
        Path | None,
        typer.Option("--per-query", help="A Parquet file to write, with the rank of every query of every source."),
    ] = None,
    *,
    columns: SplitColumns,
    aim: Aim,
    where: Where,
    check_weights: CheckOption = True,
) -> None:
    """Retrieval or zero-shot metrics of a model, with or without a mask, on any sources."""
    from headwise.cli import console
    from headwise.jobs.measure import measured
    from headwise.jobs.verbs import load_model
    from headwise.scoring.metrics import clip_benchmark_json
    from headwise.scoring.per_query import write_per_query

    place = where.machine
    loaded = load_model(model, place)
    both = [
        measured(
            loaded,
            source,
            mask,
            only_split=only_split,
            goal=aim.goal,
            queries=per_query is not None,
            machine=place,
            check_weights=check_weights,
            reporter=where.reporter,
            **columns.keywords,
        )
        for source in pairs
    ]
    found = [one for one, _ in both]
    printed = [
        clip_benchmark_json(
            one["metrics"],
            dataset=one["dataset"],
            model=one["model"],
            task=one["task"],
            gallery={"images": one["images"], "captions": one["captions"]},
        )
        | {"mask": one["mask"], "reference": one["reference"]}
        for one in found
    ]
    if where.as_json:
        console.print_json(printed[0] if len(printed) == 1 else printed)
    else:
        console.print_evaluations(found)
    if per_query is not None:  # last: a file that cannot be written costs no number
        write_per_query([table for _, table in both if table is not None], per_query)


@app.command()
def merge(
    model: ModelArgument,
    mask: Annotated[str, typer.Argument(help="A mask's folder, or text such as zero:L10.H3,L11.H0.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model folder to write.")],
    means_from: Annotated[
        str | None, typer.Option("--means-from", help="Operator mean: pairs to compute the constants on.")
    ] = None,
    check_weights: CheckOption = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a former merge.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Fold a mask into the weights: an ordinary model folder with no extra inference cost."""
    from headwise.cli import console
    from headwise.jobs.measure import merge as run

    report = run(
        model,
        mask,
        out,
        means_from=means_from,
        machine=machine("float32", device, None),
        check_weights=check_weights,
        overwrite=overwrite,
        reporter=console.Terminal(quiet=as_json),
    )
    if as_json:
        console.print_json(
            {
                "folder": str(report.folder),
                "largest_difference": report.largest_difference,
                "relative_difference": report.relative_difference,
                "dtype": report.dtype,
                "images": report.images,
            }
        )
        return
    console.out.print(
        f"Written to {report.folder} in {report.dtype}. Largest difference to the masked model: "
        f"{report.largest_difference:.2e} ({report.relative_difference:.2e} relative) on {report.images} images.",
        highlight=False,
        soft_wrap=True,
    )


app.command()(compare.compare)
app.command()(compare.transfer)
app.command()(front.front)
app.command()(look.inspect)
app.command()(look.models)
app.add_typer(look.data, name="data")


def main() -> None:
    """Entry point: 0 when all is well, 1 for bad input (a sentence, no traceback), 2 for wrong usage."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except HeadwiseError as error:
        print(f"headwise: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("headwise: interrupted; the same command continues where it stopped.", file=sys.stderr)
        sys.exit(130)
