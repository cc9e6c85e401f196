"""Help texts with options under headings, for commands with dozens of options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

Sections = Mapping[str, Sequence[str]]


class SectionedCommand(click.Command):
    """A command whose help text groups its options under headings.

    Parameters
    ----------
    sections
        The longest names of options under each heading, in the order of the help text. Options
        without a heading come last.
    arguments, options
        Of `click.Command`.
    """

    LAST = "Other options"

    def __init__(self, *arguments: Any, sections: Sections | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sections = sections or {}

    def sectioned(self, ctx: click.Context) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Each heading, and the names and help texts of its options."""
        records = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None and isinstance(option, click.Option):
                records[max(option.opts, key=len)] = record
        for heading, names in self.sections.items():
            yield heading, [records.pop(name) for name in names]
        yield self.LAST if self.sections else "Options", list(records.values())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        for heading, records in self.sectioned(ctx):
            with formatter.section(heading):
                formatter.write_dl(records)
