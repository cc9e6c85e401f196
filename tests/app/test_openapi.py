"""The description of the API is that of what is served."""

from __future__ import annotations

import html
import re
from typing import Any

from starlette.routing import Route

from tests.app.serving import ROOT
from unetsep.app.choices import FIELDS
from unetsep.app.handlers import STATIC, Handlers, read
from unetsep.app.openapi import describe, render

PAGES = {"/", "/static/{name}", "/api"}


def test_the_description_lists_exactly_the_routes_that_are_served() -> None:
    routes: list[Route] = Handlers(None, {}).routes()  # type: ignore[arg-type]
    served = {
        (route.path.replace("{path:path}", "{path}"), method.lower())
        for route in routes
        for method in (route.methods or set()) - {"HEAD"}
        if route.path not in PAGES
    }
    described = {(path, method) for path, each in describe()["paths"].items() for method in each}
    assert served == described
    assert len(served) == 10


def test_the_form_is_described_with_every_field_on_the_page_of_the_app_too() -> None:
    content = describe()["paths"]["/separate"]["post"]["requestBody"]["content"]
    properties = content["multipart/form-data"]["schema"]["properties"]
    assert set(properties) == {"file", "wait", *FIELDS}
    page = (ROOT / "docs/how-to/web-service.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", page, flags=re.MULTILINE)
    assert set(properties) <= set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_every_state_of_a_job_is_named_on_the_page_of_the_app() -> None:
    states = describe()["components"]["schemas"]["Job"]["properties"]["state"]["enum"]
    page = (ROOT / "docs/how-to/web-service.md").read_text(encoding="utf-8")
    assert len(states) == 5
    assert set(states) <= set(re.findall(r"`(\w+)`", page))


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        inner = [each for item in value.values() for each in references(item)]
        return [*inner, *([value["$ref"]] if "$ref" in value else [])]
    return [each for item in value for each in references(item)] if isinstance(value, list) else []


def test_references_resolve_and_parameters_are_those_of_the_path() -> None:
    document = describe()
    names = references(document)
    assert len(names) > 10
    for name in names:
        assert name.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            given = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
            assert given == re.findall(r"{(\w+)}", path)


def test_the_page_lists_all_routes_and_no_page_loads_from_other_hosts() -> None:
    page = render(describe())
    for path in describe()["paths"]:
        assert html.escape(path) in page
    assert "<script" not in page
    texts = [page, *(read(name).decode() for name in ("index.html", *STATIC))]
    addresses = re.findall(r"""(?:src|href|url\(|import)\W{1,3}(https?:|//)""", "".join(texts))
    assert addresses == []
