"""The model card: `README.md` of a mask's folder and of a merged model.

In: results as `results.json` holds them. Out: Markdown with a YAML header.
"""

from __future__ import annotations

from headwise.edits.card import card_header
from headwise.plain import Markdown, markdown
from headwise.reports.beside import beside
from headwise.reports.rungs import learned, trained_sentence
from headwise.reports.templates import render
from headwise.reports.weights import weights_sentence
from headwise.reports.words import Results, change, counted, interval, metric_name, p_equals
from headwise.shipping.card import loading


def model_card(results: Results, *, merged: bool = False) -> str:
    """A model card with its YAML header.

    Arguments:
        results: what `headwise.refine` returns and `results.json` holds.
        merged: the card is for the merged model's folder, not for the mask's.

    Raises:
        HeadwiseError: the results lack a field.
    """
    return render(
        "card.md.j2",
        results,
        header=lambda: Markdown(card_header(results["model"]["name"], merged=merged)),
        loading=lambda family: Markdown(loading(family)),
        merged=merged,
        learned=learned,
        trained=lambda: trained_sentence(results),
        beside=lambda: beside(results),
    )


def tuned_card(results: Results, method: str) -> str:
    """The model card of a baseline that `compare` wrote.

    Arguments:
        results: what `headwise.compare` returns.
        method: which baseline.
    """
    row = next(row for row in results["rows"] if row["method"] == method)
    found, data, measure = row["test_by_search"], results["data"], metric_name(results["settings"]["fitness"])
    name = results["model"]["name"]
    lines = [
        card_header(name, merged=True),
        "",
        f"# {markdown(name)}, trained on {markdown(data['source'])} with {method}",
        "",
        f"Change of {markdown(measure)} against the unchanged model on {data['splits']['test']:,} test images, mean of "
        f"{counted(row['runs'], 'run')}: {change(found['delta'])} points, 95 % interval {interval(found['interval'])}, "
        f"{p_equals(found['p'])}. {row['trained']:,} values of the image tower were trained on "
        f"{counted(data['splits']['search'], 'image')}; this folder is the run that {counted(data['splits']['pick'], 'image')} "
        "of the pick split liked best. Text embeddings are those of the base model.",
    ]
    for domain, kept in zip(data["keep_domain"], row["keep_domain_by_search"], strict=True):
        lines += ["", f"On {markdown(domain['source'])}: {change(kept['delta'])} points, {interval(kept['interval'])}."]
    return "\n".join([*lines, "", "Written by headwise compare. The licence of the base model applies.", ""])


def weights_card(results: Results) -> str:
    """The model card of trained weights that `refine` wrote.

    Arguments:
        results: what `headwise.refine` returns, with weights that the pick split preferred.
    """
    found, data, name = results["weights"], results["data"], results["model"]["name"]
    lines = [
        card_header(name, merged=True),
        "",
        f"# {markdown(name)}, trained on {markdown(data['source'])}: {found['preferred']['name']}",
        "",
        markdown(weights_sentence(results)),
        "",
        f"Trained on {counted(data['splits']['search']['images'], 'image')}, chosen on "
        f"{counted(data['splits']['pick']['images'], 'image')}, tested on {counted(data['splits']['test']['images'], 'image')}. "
        "Text embeddings are those of the base model; images have to be embedded again.",
    ]
    for domain in found["kept"]:
        lines += [
            "",
            f"On {markdown(domain['source'])}: {change(domain['delta'])} points, {interval(domain['interval'])}.",
        ]
    return "\n".join([*lines, "", "Written by headwise refine. The licence of the base model applies.", ""])
