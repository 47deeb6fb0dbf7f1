"""What `compare`, `transfer` and `front` say in Markdown, as a part of an HTML page.

In: the Markdown of `comparison_text`, `transfer_text` or `front_text`, and the folder of its picture. Out: HTML that
asks for nothing from outside. HTML in the text stays text.
"""

from __future__ import annotations

import base64
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

OPENS = '<div class="scroll" tabindex="0" role="region" aria-label="{}">'


def told(text: str, folder: Path, title: str) -> Markup:
    """The Markdown as HTML, without its heading, as the page has one.

    Arguments:
        text: Markdown, CommonMark with GitHub's tables.
        folder: where the pictures that it names lie; one that is not there is left out.
        title: names its tables for those who do not see them.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    if tokens and tokens[0].type == "heading_open":
        tokens = tokens[3:]  # it opens, its text, it closes
    shown: list[Token] = []
    for token in tokens:
        if token.type == "inline":
            token.children = [one for one in token.children or () if one.type != "image" or _within(one, folder)]
        if token.type == "table_open":
            shown.append(Token("html_block", "", 0, content=OPENS.format(title)))
        shown.append(token)
        if token.type == "table_close":
            shown.append(Token("html_block", "", 0, content="</div>"))
    return Markup(parser.renderer.render(shown, parser.options, {}))  # `html` is off: text is escaped


def _within(image: Token, folder: Path) -> bool:
    """Put a picture's bytes in its place; whether there are any."""
    path = folder / str(image.attrs["src"])
    if path.parent != folder or not path.is_file():
        return False
    image.attrs["src"] = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return True
