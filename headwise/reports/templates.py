"""Results → documents by template: what the templates beside this file may call, and what a result that lacks a field gives.

In: a template's name or text, plain values of `results.json`. Out: Markdown, or HTML with every value escaped. What is said of a
result is in `words.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from headwise.errors import HeadwiseError
from headwise.plain import Markdown, code, literal, markdown
from headwise.reports import words
from headwise.reports.edit_lists import against, shortened
from headwise.reports.words import Results

if TYPE_CHECKING:
    from jinja2 import Environment


def results_table(results: Results) -> str:
    """Before and after on the test split as a Markdown table (the README's, the cards' and the report's).

    Raises:
        HeadwiseError: the results lack a field.
    """
    return render("{{ before_after(r) }}", results)


def render(template: str, results: Results, **values: object) -> str:
    """Fill in a template.

    Arguments:
        template: the name of a file beside this one (`*.j2`), or a template's text.
        results: known to the template as `r`.
        values: more names.

    Raises:
        HeadwiseError: the results lack a field.
    """
    return _render(_environment(False), template, results, values)


def render_page(template: str, results: Results, **values: object) -> str:
    """As `render`, for HTML: every value is escaped unless the template says that it is safe."""
    return _render(_environment(True), template, results, values)


def _render(environment: Environment, template: str, results: Results, values: Mapping[str, object]) -> str:
    from jinja2 import UndefinedError

    make = environment.get_template if template.endswith(".j2") else environment.from_string
    try:
        return make(template).render(r=results, **values)
    except (KeyError, UndefinedError) as error:
        what = f"the field {error}" if isinstance(error, KeyError) else f"a field: {error}"
        raise HeadwiseError(f"The results lack {what}. Give results as headwise refine writes them.") from error


@cache
def _environment(html: bool) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("headwise.reports", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=html,
        finalize=None if html else markdown,  # every value that a template shows; what is Markdown by its type stays
    )
    environment.filters.update(
        against=against,
        shortened=shortened,
        points=words.points,
        change=words.change,
        interval=words.interval,
        p=words.p_value,
        code=code,
        literal=literal,
        md=Markdown,
    )
    environment.globals.update(
        before_after=words.before_after,
        claim=words.claim,
        power_sentence=words.power_sentence,
        reads_sentence=words.reads_sentence,
        counted=words.counted,
        first_order_agreement=words.first_order_agreement,
        grid_of=words.grid_of,
        main_metric=words.main_metric,
        metric_name=words.metric_name,
        p_equals=words.p_equals,
        plus_minus=words.plus_minus,
        row_of=words.row_of,
        size_of=words.size_of,
        taken_sentence=words.taken_sentence,
        verdict=words.verdict,
    )
    return environment
