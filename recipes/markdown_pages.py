"""Parts of Markdown pages that other recipes write."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path


def markdown_table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> list[str]:
    """A table of Markdown, without empty columns."""
    cells = list(rows)
    columns = [i for i in range(len(head)) if any(row[i] for row in cells)]
    lines = [[row[i] for i in columns] for row in (head, *cells)]
    lines.insert(1, ["---"] * len(columns))
    return [
        "|" + "|".join(line) + "|" if line[0] == "---" else f"| {' | '.join(line)} |"
        for line in lines
    ]


def between(path: Path, marks: tuple[str, str], lines: list[str]) -> str:
    """A file's text with other lines between its two marks."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(marks[0] + "\n")
    _, end, after = rest.partition(marks[1] + "\n")
    if not begin or not end:
        raise SystemExit(f"{path} lacks the line {marks[0] if not begin else marks[1]}")
    return before + begin + "\n".join(lines) + "\n" + end + after


def one_line(text: str) -> str:
    """Text of a help or docstring in one line: options are code, nothing else is markup."""
    parts = " ".join(text.replace("\b", "").split()).replace("``", "`").split("`")
    for i in range(0, len(parts), 2):  # outside code
        plain = re.sub(r"([*_\[\]{}])", r"\\\1", html.escape(parts[i], quote=False))
        parts[i] = re.sub(r"(?<![^\s(])(--?[a-z][\w-]*)", r"`\1`", plain)
    return "`".join(parts)


def paragraphs(text: str) -> Iterator[str]:
    """Lines of paragraphs, each in one line; formulas, which are indented, as they are."""
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.startswith(" "):
            yield from ("```text", textwrap.dedent(paragraph), "```", "")
        elif paragraph.startswith("- "):
            items = re.split(r"^- ", paragraph, flags=re.MULTILINE)[1:]
            yield from (*(f"- {one_line(item)}" for item in items), "")
        else:
            yield from (one_line(paragraph), "")
