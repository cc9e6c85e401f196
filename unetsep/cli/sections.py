"""Help texts with options under headings, for commands with dozens of options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click


class SectionedCommand(click.Command):
    """A command whose help text groups its options under headings.

    Parameters
    ----------
    sections
        The heading above each first option of a section, by the longest name of that option. The
        options that follow it in the command belong to the same section.
    arguments, options
        Of `click.Command`.
    """

    def __init__(
        self, *arguments: Any, sections: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.sections = sections or {}

    def sectioned(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """The names and help texts of the options under each heading."""
        records: dict[str, list[tuple[str, str]]] = {}
        heading = "Options"
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None and isinstance(option, click.Option):
                heading = self.sections.get(max(option.opts, key=len), heading)
                records.setdefault(heading, []).append(record)
        return records

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        for heading, records in self.sectioned(ctx).items():
            with formatter.section(heading):
                formatter.write_dl(records)
