"""The Python reference, from signatures and docstrings.

Between ``<!-- reference: NAME, ... -->`` and ``<!-- end of reference -->`` a page holds what the
docstrings say about public names of `unetsep`; ``python recipes/reference.py`` writes it. Griffe
reads the source, so nothing is imported.
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import griffe
from markdown_pages import one_line, paragraphs

ROOT = Path(__file__).parent.parent
MARKED = re.compile(r"(<!-- reference: ([\w, ]+) -->\n).*?(<!-- end of reference -->\n)", re.DOTALL)
Kind = griffe.DocstringSectionKind


def with_reference(page: str) -> str:
    """A page's text with a new reference between its marks."""
    package: Any = griffe.load("unetsep", search_paths=[ROOT], try_relative_path=False)

    def between(match: re.Match[str]) -> str:
        lines: list[str] = []
        for name in match[2].split(", "):
            member = package[name]
            lines += _member(member.final_target if member.is_alias else member, name, "###")
        return match[1] + "\n" + "\n".join(lines) + "\n" + match[3]

    return MARKED.sub(between, page)


def _member(member: Any, name: str, heading: str) -> Iterator[str]:
    """Lines about a function, class or type, and about the members of a class."""
    yield from (f"{heading} `{name}`", "")
    if not member.is_class or member.parameters:
        yield from ("```text", _declaration(member, name), "```", "")
    annotations = {each.name: each.annotation for each in getattr(member, "parameters", ())}
    for section in member.docstring.parse("numpy", warnings=False):
        yield from _section(section, annotations)
    if member.is_class:
        public = [each for each in member.members.values() if each.is_public and each.docstring]
        properties = [each for each in public if each.is_attribute]
        if properties:
            yield from ("Properties:", "")
            for each in properties:
                yield f"- `{each.name}` (`{each.annotation}`): {one_line(each.docstring.value)}"
            yield ""
        for each in public:
            if each.is_function:
                yield from _member(each, f"{name}.{each.name}", heading + "#")


def _declaration(member: Any, name: str) -> str:
    """How a function or class is called, or what a type is."""
    if member.is_attribute:
        return f"{name} = {member.value}"
    returns = f" -> {member.returns}" if member.is_function else ""
    call = f"{name}({', '.join(_arguments(member.parameters))}){returns}"
    return textwrap.fill(call, 88, subsequent_indent="    ", break_on_hyphens=False)


def _arguments(parameters: Iterable[Any]) -> Iterator[str]:
    """Names of parameters with their defaults; ``*`` before those that are named in a call."""
    starred = False
    for each in parameters:
        if each.name in ("self", "cls"):
            continue
        if each.kind is griffe.ParameterKind.keyword_only and not starred:
            starred = True
            yield "*"
        if each.kind is griffe.ParameterKind.var_positional:
            starred = True
            yield f"*{each.name}"
        else:
            yield each.name if each.default is None else f"{each.name}={each.default}"


def _section(section: Any, annotations: dict[str, Any]) -> Iterator[str]:
    """Lines about a section of a docstring."""
    if section.kind is Kind.text:
        yield from paragraphs(section.value)
    elif section.kind is Kind.examples:
        for kind, text in section.value:
            code = kind is Kind.examples
            yield from ("```text", text, "```", "") if code else paragraphs(text)
    elif section.kind is Kind.parameters:
        # numpy's style allows several names above one description, each of a type of its own.
        for text, group in itertools.groupby(section.value, lambda each: each.description):
            names = ", ".join(f"`{each.name}` (`{annotations[each.name]}`)" for each in group)
            yield f"- {names}: {one_line(text)}"
        yield ""
    else:  # attributes, and what is returned, yielded or raised
        yield from (f"{section.kind.value.capitalize()}:", "")
        for each in section.value:
            types = ", ".join(f"`{name}`" for name in str(each.annotation).strip("()").split(", "))
            head = f"`{each.name}` ({types})" if section.kind is Kind.attributes else types
            yield f"- {head}: {one_line(each.description)}"
        yield ""
