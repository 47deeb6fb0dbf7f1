"""Reports and cards of hostile names: the same markup as those of plain names."""

import json
import re

from hostile import HOSTILE, html
from sample_results import sample

from headwise.plain import picture
from headwise.reports.card import model_card
from headwise.reports.drawing import drawing
from headwise.reports.refine import report_text


def test_reports_of_hostile_names_have_the_tags_of_reports_of_plain_names():
    """Every text from outside that results hold, hostile, in every Markdown file."""

    plain = sample()
    for text in HOSTILE[:-1]:
        hostile = json.loads(json.dumps(plain))
        hostile["model"]["name"] = hostile["data"]["source"] = hostile["data"]["split_how"] = text
        hostile["chosen"]["found_by"] = hostile["finalists"][0]["found_by"] = hostile["model"]["family"] = text
        for write in (report_text, model_card, lambda r: model_card(r, merged=True)):
            # a form of the card depends on the family: compare like with like
            likely = json.loads(json.dumps(plain)) | {"model": plain["model"] | {"family": "x"}}
            assert tags(write(hostile)) == tags(write(likely)), (text, write)


def tags(text: str) -> list[str]:
    return re.findall(r"<\w+|</\w+", re.sub(r"(?s)\A---\n.*?\n---\n", "", html(text)))


def test_pictures_draw_any_text_as_it_is():
    """A formula is not set, and what would be a wrong one is no error."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    def draw(texts: list[str]) -> bytes:
        buffer = io.BytesIO()
        with drawing():
            figure = Figure(figsize=(8, 12))
            FigureCanvasAgg(figure)
            for i, text in enumerate(texts):
                figure.text(0.02, i / (len(texts) + 1), picture(text))
            figure.savefig(buffer, format="png")
        return buffer.getvalue()

    assert draw(list(HOSTILE)).startswith(b"\x89PNG")
