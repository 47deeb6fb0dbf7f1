"""refine and demo on the command line: options → Settings → `jobs.refine` → a table.

In: arguments. Out: the test table and the verdict, the plan of `--dry-run`, or JSON. An option of a search that was
not asked for is refused before a model is loaded.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.crewed import Crewed
from headwise.cli.options import (
    BUDGET,
    RUNGS,
    Aim,
    BudgetOption,
    ChooseOption,
    DeviceOption,
    DryRunOption,
    ExactOption,
    JsonOption,
    KeepOption,
    LevelOption,
    MaxHeadsOption,
    MinutesOption,
    ModelArgument,
    OperatorOption,
    OutOption,
    PairsArgument,
    RungsOption,
    SplitByOption,
    SplitColumns,
    StrategyOption,
    given,
    machine,
    names,
)
from headwise.errors import HeadwiseError

if TYPE_CHECKING:
    from headwise.evaluation.crew import Staff

DEMO_WORKERS = 4  # a batch of learned rungs has as many parts
DEMO_FFE = 89.0  # its budget, with a narrow greedy search and few controls: some minutes on two cores


@grouped
def refine(
    model: ModelArgument,
    pairs: PairsArgument,
    out: OutOption,
    operator: OperatorOption = "uniform",
    strategy: StrategyOption = "greedy,ga",
    rungs: RungsOption = RUNGS,
    choose: ChooseOption = "best",
    budget: BudgetOption = None,
    max_minutes: MinutesOption = None,
    dry_run: DryRunOption = False,
    no_sweep: Annotated[
        bool, typer.Option("--no-sweep", help="Skip the sweep: first-order scores rank the heads (one gradient pass).")
    ] = False,
    no_refit: Annotated[
        bool,
        typer.Option(
            "--no-refit", help="Test what was chosen as it is, not learned again from search and pick images."
        ),
    ] = False,
    exact: ExactOption = False,
    max_heads: MaxHeadsOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the splits, searches, controls and statistics.")] = 0,
    split_by: SplitByOption = "auto",
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
    anchor: Annotated[
        str | None,
        typer.Option(
            "--anchor",
            help="Old images, a folder or a source whose captions are not read: learned rungs are held to where the model "
            "puts them.",
        ),
    ] = None,
    anchor_weight: Annotated[
        float | None, typer.Option("--anchor-weight", help="How much: the penalty's weight; 1 by default.")
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option("--max-loss", help="Most points a kept domain may lose on its pick split; 0.5.")
    ] = None,
    width: Annotated[int | None, typer.Option("--width", help="Greedy: heads that each step tries.")] = None,
    finalists: Annotated[int, typer.Option(help="Masks that the pick split compares with identity.")] = 12,
    controls: Annotated[int, typer.Option(help="Random masks on the test split.")] = 20,
    level: LevelOption = 0.05,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Also write what every head does into explanation/ (see headwise explain)."),
    ] = False,
    *,
    columns: SplitColumns,
    aim: Aim,
    where: Crewed,
) -> None:
    """The main job: find harmful heads, prove it on held-out pairs, write the refined model.

    Example: headwise refine hf:openai/clip-vit-base-patch32 pairs.csv -o refined/
    """
    from headwise.cli import console
    from headwise.jobs.refine import refine as run
    from headwise.jobs.steps.settings import STRATEGIES, Settings, check_strategies

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
    check_strategies(names(strategy), STRATEGIES)
    if (given(asked) or exact) and "ga" not in chosen:
        about = [*given(asked), *(["exact"] if exact else [])]
        raise HeadwiseError(f"--{', --'.join(about)}: about AAT-GA; add ga to --strategy.")
    if "bp" not in chosen and (given(learned) or keep_soft or recompute or autocast):
        raise HeadwiseError(
            "--gates, --learning-rate, --epochs, --batch, --penalty, --keep-soft, --recompute and --autocast are about "
            "AAT-BP; add bp to --strategy."
        )
    if anchor_weight is not None and anchor is None:
        raise HeadwiseError("--anchor-weight says how much anchors count; give some with --anchor.")
    if max_loss is not None and not keep_domain:
        raise HeadwiseError("--max-loss limits what a kept domain may lose; give one with --keep-domain.")
    if width is not None and "greedy" not in chosen:
        raise HeadwiseError("--width is about the greedy search; add greedy to --strategy.")
    base = Settings()
    settings = replace(
        base,
        **given({"max_loss": max_loss, "width": width, "anchor_weight": anchor_weight}),
        operators=names(operator),
        strategies=names(strategy),
        rungs=names(rungs),
        choose=choose,
        refit=not no_refit,
        budget=budget,
        max_minutes=max_minutes,
        sweep=not no_sweep,
        exact=exact,
        genetic=replace(base.genetic, **given(asked)),
        gradient=replace(base.gradient, recompute=recompute, autocast=autocast, **given(learned)),
        keep_soft=keep_soft,
        max_heads=max_heads,
        finalists=finalists,
        controls=controls,
        level=level,
        seed=seed,
    )
    if no_refit and not (settings.learning or settings.weights):
        raise HeadwiseError(
            "--no-refit is about learned rungs, and none is asked for; add one, as in --rungs mask,scale."
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
        anchor=anchor,
        dry_run=dry_run,
        explain=explain,
        reporter=where.reporter,
        **columns.keywords,
    )
    if dry_run and not where.as_json:
        console.print_plan(found.results)
    elif where.as_json:
        console.print_json(found.results)
    else:
        console.print_refined(found.results, out)


@grouped
def demo(
    out: OutOption = Path("demo-out"),
    operator: OperatorOption = "uniform",
    rungs: RungsOption = RUNGS,
    seed: Annotated[int, typer.Option("--seed", help="Of the searches, controls and statistics.")] = 0,
    budget: Annotated[float | None, typer.Option("--budget", help=f"{BUDGET}.")] = DEMO_FFE,
    max_minutes: MinutesOption = None,
    dry_run: DryRunOption = False,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """The main job on the packaged model and pairs, with greedy search alone and a budget that takes a few minutes."""
    from headwise.cli import console
    from headwise.cli.telling import Terminal
    from headwise.jobs.refine import refine as run
    from headwise.jobs.steps.settings import Settings

    settings = Settings(
        operators=names(operator),
        strategies=("greedy",),
        rungs=names(rungs),
        width=6,
        controls=5,
        seed=seed,
        budget=budget,
        max_minutes=max_minutes,
    )
    reporter = Terminal(quiet=as_json)
    where = machine("auto", device, None)
    where = replace(where, staff=_staff(where.device))
    found = run("demo", "demo", out, settings=settings, dry_run=dry_run, reporter=reporter, machine=where)
    if dry_run and not as_json:
        console.print_plan(found.results)
    elif as_json:
        console.print_json(found.results)
    else:
        console.print_refined(found.results, out)


def _staff(device: str) -> Staff:
    """Up to four processes where there are cores for them: in a model this small threads wait for each other longer than
    the products take."""
    from headwise.data.workers import usable_cores
    from headwise.evaluation.crew import Staff

    cores = usable_cores() if device == "cpu" and "OMP_NUM_THREADS" not in os.environ else 1
    return Staff(min(cores, DEMO_WORKERS) if cores > 1 else None)
