"""The pages that say what the code says: the command line, Python, formats and JSON.

    python recipes/reference.py

writes pages of docs/reference: command-line.md from the commands of ``unetsep``, what python.md
says about public names from their docstrings, the table in formats.md from
`unetsep.audio.formats.CONTAINERS`, and the fields in json.md from the schema in the package.
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
from markdown_pages import between, markdown_table, one_line, paragraphs
from python_reference import with_reference

from unetsep.audio.formats import CONTAINERS
from unetsep.cli import main as unetsep
from unetsep.cli.sections import SectionedCommand
from unetsep.library.log import SCHEMA_FILE

PAGES = Path(__file__).parent.parent / "docs/reference"
COMMAND_LINE, PYTHON, FORMATS, FIELDS = (
    PAGES / name for name in ("command-line.md", "python.md", "formats.md", "json.md")
)
INTRODUCTION = """# The command line

This page is made from the program: `unetsep separate --help` and the like show the same. The page
about [errors](errors.md) says what each message means.

"""
MARKS = ("<!-- formats: begin -->", "<!-- formats: end -->")
FIELD_MARKS = ("<!-- fields: begin -->", "<!-- fields: end -->")


def command_line() -> str:
    """The page of all commands."""
    return INTRODUCTION + "\n".join(_command(unetsep, "unetsep", None)).strip() + "\n"


def _command(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    """Lines about one command, then about those below it."""
    settings = command.context_settings
    context = click.Context(command, parent, name.rpartition(" ")[2], **settings)
    usage = " ".join(command.collect_usage_pieces(context))
    yield from (f"## `{name}`", "", *paragraphs(inspect.cleandoc(command.help or "")))
    yield from ("```text", f"{name} {usage}", "```", "")
    if isinstance(command, SectionedCommand) and command.sections:
        for heading, records in command.sectioned(context).items():
            yield from (f"**{heading}**", "", *_options(records))
    else:
        shown = (each.get_help_record(context) for each in command.get_params(context))
        yield from _options(record for record in shown if record and record[1])
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            below = command.get_command(context, child)
            if below is not None and not below.hidden:
                yield from _command(below, f"{name} {child}", context)


def _options(records: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A list of options and what they do."""
    yield from (*(f"- `{names}`: {one_line(text)}" for names, text in records), "")


def formats() -> list[str]:
    """A row for each output format."""
    rows = (
        (
            f"`{name}`",
            row.help,
            ", ".join(row.bit_depths) or "lossy",
            row.limits,
        )
        for name, row in CONTAINERS.items()
    )
    return markdown_table(("format", "what", "bits", "holds"), rows)


def fields() -> list[str]:
    """What the schema says about each field, under a heading for each object."""
    kinds = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))["$defs"]
    lines = []
    titles = {
        "A report": "report",
        "A line of a run log": "song",
        "An entry of a record": "entry",
    }
    for title, kind in titles.items():
        lines += [
            "",
            f"## {title}",
            "",
            *markdown_table(("field", "type", "what"), _rows(kinds[kind])),
        ]
    return lines


def _rows(schema: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, field in schema["properties"].items():
        yield f"`{name}`", _kind(field), one_line(field.get("description", ""))


def _kind(field: dict[str, Any]) -> str:
    """The type of a field in words."""
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    kinds = field["type"]
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


def pages() -> dict[Path, str]:
    """Each page with its text."""
    return {
        COMMAND_LINE: command_line(),
        PYTHON: with_reference(PYTHON.read_text(encoding="utf-8")),
        FORMATS: between(FORMATS, MARKS, ["", *formats(), ""]),
        FIELDS: between(FIELDS, FIELD_MARKS, [*fields(), ""]),
    }


def main() -> None:
    """Write the pages."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
