"""For the site: each of several parameters that share a line of a docstring has its own type.

numpy's style allows ``start, duration`` above one description. Griffe, which reads docstrings for
mkdocstrings, gives all of them type and default of the first; zensical.toml names this extension,
which takes them from the signature.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import griffe


class GroupedParameters(griffe.Extension):
    """Corrects the sections of parameters once a package is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Correct all docstrings of a package."""
        for owner in _documented_members(pkg):
            signature = {parameter.name: parameter for parameter in owner.parameters}
            sections = owner.docstring.parse("numpy", warnings=False)
            for section in sections:
                if section.kind is griffe.DocstringSectionKind.parameters:
                    for parameter in section.value:
                        if parameter.name in signature:
                            parameter.annotation = signature[parameter.name].annotation
                            parameter.value = signature[parameter.name].default
            owner.docstring.parsed = sections


def _documented_members(module: griffe.Module) -> Iterator[Any]:
    """Functions and classes with a docstring, at any depth."""
    for member in module.members.values():
        if member.is_alias or not (member.is_module or member.is_class or member.is_function):
            continue
        if member.docstring is not None and not member.is_module:
            yield member
        yield from _documented_members(member)
