"""Options of a command under headings, for commands that have dozens of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

Sections = Mapping[str, Sequence[str]]


class SectionedCommand(click.Command):
    """A command whose help text has its options under headings.

    Parameters
    ----------
    sections
        The longest names of options under each heading, in the order of the help text. Options
        that no heading has stand at the end.
    arguments, options
        Of `click.Command`.
    """

    LAST = "Other options"

    def __init__(self, *arguments: Any, sections: Sections | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sections = sections or {}

    def sectioned(self, ctx: click.Context) -> Iterator[tuple[str, list[tuple[str, str]]]]:
        """Each heading, and what is said of each option below it."""
        records = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None and isinstance(option, click.Option):
                records[max(option.opts, key=len)] = record
        for heading, names in self.sections.items():
            yield heading, [records.pop(name) for name in names]
        yield self.LAST if self.sections else "Options", list(records.values())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, one section after the other."""
        for heading, records in self.sectioned(ctx):
            with formatter.section(heading):
                formatter.write_dl(records)
