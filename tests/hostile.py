"""Texts that mean something to a terminal, to Markdown, YAML, TeX or a template; and what Markdown makes of a text."""

import os

from markdown_it import MarkdownIt

HOSTILE = (
    "a[/b].csv", "[/INST]", "[link=https://evil.example]x[/link]", "[bold red]x", ":smile:", "---", "# x", "<script>alert(1)</script>",
    "a|b", "`x`", "``", "one\ntwo", "one\r\n---\ntwo: x", "\x1b[31mred\x1b[0m", "\x1b]8;;https://evil.example\x07x", "\x9b31m", "\u202egnp.exe",
    "$\\frac{1}{0}$", "$x", "$\\nonsense{$", "a_b_c", "*x*", "_x_", "~~x~~", "&lt;b&gt;", "{{ 7 * 7 }}", "{% raw %}", "null", "yes", "1e3", "- x: y", "'", '"', "\\",
    "x" * 500, os.fsdecode(b"caf\xe9"), "日本語", "\u2028x", "a: b #c", "![x](y)", "[x](javascript:y)", "<!-- card written by headwise -->", "```", "",
)  # fmt: skip


def html(text: str) -> str:
    """What a reader of GitHub's Markdown makes of it."""
    return MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(text)
