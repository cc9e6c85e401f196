"""What the API promises: as OpenAPI 3.1 for programs, and as a plain page to read.

The page is written here and runs no script: the usual viewers load theirs from other hosts.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from ..audio.formats import BIT_DEPTHS
from ..version import __version__
from .choices import PASSES, formats
from .jobs import ID

Document = dict[str, Any]
ERROR = {"$ref": "#/components/schemas/Error"}
JOB = {"$ref": "#/components/schemas/Job"}
JSON = "application/json"
ANY = "*/*"  # of sound, pictures and scripts: the answer says which
GONE = "There is no such job or file, or it was removed."
NOT_DONE = "The job is not done."


def describe() -> Document:
    """The API as an OpenAPI document; a test holds it equal to the addresses that are served."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "unetsep",
            "version": __version__,
            "description": "Splits songs into stems. Send a song, follow its job, fetch the stems. "
            'Errors are JSON with one sentence: {"error": "..."}.',
        },
        "paths": _guarded(_paths()),
        "components": {"schemas": _schemas()},
    }


def _guarded(paths: Document) -> Document:
    """With what every address may answer."""
    for methods in paths.values():
        for operation in methods.values():
            operation["responses"] |= _errors(
                {"403": "A page from elsewhere asks, or the app is not called so: --allow-host."}
            )
    return paths


def _paths() -> Document:
    zip_file = _file("A zip with all stems.", "application/zip")
    parts = {
        "206": _file("The part, or parts, that Range asks for.", ANY),
        "400": _file("Range is none.", "text/plain"),
        "416": _file("Range lies beyond the end.", "text/plain"),
    }
    return {
        "/separate": {
            "post": {
                "summary": "Send a song",
                "description": "Answers 202 with a job at once. With wait=true it answers with a "
                "zip of the stems once they are done, and forgets the job; whoever disconnects "
                "before cancels it.",
                "parameters": [
                    _parameter("id", "query", {"type": "string", "pattern": f"^{ID}$"})
                    | {
                        "description": "The job's id, chosen at random. Who chooses it can remove "
                        "the job even without having read the answer."
                    }
                ],
                "requestBody": {"required": True, "content": {"multipart/form-data": _form()}},
                "responses": {
                    "200": zip_file,
                    "202": _json("The job; Location is its address.", JOB),
                    **_errors(
                        {
                            "400": "No form, no file, or the upload was cut off.",
                            "409": "There is a job with this id already.",
                            "408": "The upload was too slow.",
                            "413": "The file is too large; it is refused while it arrives.",
                            "422": "A field is wrong; with wait=true also: it cannot be separated.",
                            "429": "Too many songs wait: ask again after Retry-After seconds.",
                            "503": "The app was stopped before the song was done.",
                            "507": "There is no room on the disk.",
                        }
                    ),
                },
            }
        },
        "/jobs": _get(
            "Follow some jobs",
            {
                "200": _json(
                    "The jobs.",
                    {"type": "object", "properties": {"jobs": {"type": "array", "items": JOB}}},
                )
            },
            description="Jobs that are gone are left out. There is no list of all jobs: who "
            "does not know the name of a job cannot see it.",
            parameters=[_parameter("id", "query", {"type": "array", "items": {"type": "string"}})],
        ),
        "/jobs/{id}": {
            **_get(
                "Follow a job",
                {"200": _json("The job.", JOB), **_errors({"404": GONE})},
                parameters=[_parameter("id")],
            ),
            "delete": {
                "summary": "Cancel a job, or remove what it made",
                "parameters": [_parameter("id")],
                "responses": {
                    "204": {"description": "Nothing of it is left."},
                    **_errors({"404": GONE}),
                },
            },
        },
        "/jobs/{id}/stems.zip": _get(
            "Fetch all stems",
            {
                "200": zip_file,
                **parts,
                **_errors({"404": GONE, "409": NOT_DONE, "507": "No room for the zip."}),
            },
            parameters=[_parameter("id")],
        ),
        "/jobs/{id}/{path}": _get(
            "Fetch a stem, or the player",
            {"200": _file("The file.", ANY), **parts, **_errors({"404": GONE, "409": NOT_DONE})},
            description="stems/vocals.wav and so on, as the job lists them. player/ is a "
            "page to hear the stems, if player=true was sent.",
            parameters=[_parameter("id"), _parameter("path")],
        ),
        "/choices": _get(
            "Models, formats and limits", {"200": _json("What can be chosen.", {"type": "object"})}
        ),
        "/health": _get(
            "Whether songs are taken",
            {
                "200": _json("They are.", {"type": "object"}),
                "503": _json("They are not: start the app again.", {"type": "object"}),
            },
        ),
        "/metrics": _get(
            "Figures for Prometheus",
            {"200": _file("Text; no names of songs are in it.", "text/plain")},
        ),
        "/openapi.json": _get(
            "This page for programs", {"200": _json("OpenAPI 3.1.", {"type": "object"})}
        ),
    }


def _get(summary: str, responses: Document, **more: Any) -> Document:
    return {"get": {"summary": summary, **more, "responses": responses}}


def _form() -> Document:
    text = {"type": "string"}
    boolean = {"type": "boolean", "default": False}
    properties = {
        "file": text | {"format": "binary", "description": "The song."},
        "model": text | {"description": "A model of /choices; the first is taken without it."},
        "stems": text | {"description": "Only these, separated by commas."},
        "two_stems": text | {"description": "This stem, and no_STEM, the rest."},
        "without": text | {"description": "One file: all but this stem."},
        "format": text | {"enum": [row["name"] for row in formats()], "default": "wav"},
        "bit_depth": text | {"enum": list(BIT_DEPTHS), "default": "auto"},
        "passes": text
        | {
            "enum": list(PASSES),
            "default": "1",
            "description": "As --passes of unetsep separate; takes nearly as many times as long.",
        },
        "player": boolean | {"description": "Make the page to hear the stems, too."},
        "wait": boolean | {"description": "Answer with the zip instead of a job."},
    }
    return {"schema": {"type": "object", "required": ["file"], "properties": properties}}


def _schemas() -> Document:
    def nullable(kind: str, description: str) -> Document:
        return {"type": [kind, "null"], "description": description}

    job = {
        "id": {"type": "string", "description": "Cannot be guessed: keep it to yourself."},
        "name": {"type": "string", "description": "Of the song, from its file's name."},
        "state": {"type": "string", "enum": ["uploading", "queued", "running", "done", "failed"]},
        "model": nullable("string", "That separates."),
        "before": nullable("integer", "Songs before this one, while it waits."),
        "stage": nullable("string", "separating or preparing (the player)."),
        "progress": nullable("number", "0 to 1; null if the length of the song is unknown."),
        "seconds_left": nullable("number", "An estimate, while it runs."),
        "error": nullable("string", "Why it failed, in a sentence."),
        "seconds": nullable("number", "Length of the song."),
        "gain_db": nullable("number", "Gain of all stems, so that none clips."),
        "warnings": {"type": "array", "items": {"type": "string"}},
        "stems": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Name to address.",
        },
        "zip": nullable("string", "Address of the zip."),
        "player": nullable("string", "Address of the player."),
    }
    return {
        "Job": {"type": "object", "required": list(job), "properties": job},
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "string", "description": "One sentence."}},
        },
    }


def _parameter(name: str, place: str = "path", schema: Document | None = None) -> Document:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": schema or {"type": "string"},
    }


def _json(description: str, schema: Document) -> Document:
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _file(description: str, kind: str) -> Document:
    schema = {"type": "string", "format": "binary"}
    return {"description": description, "content": {kind: {"schema": schema}}}


def _errors(texts: Mapping[str, str]) -> Document:
    return {status: _json(text, ERROR) for status, text in texts.items()}


PAGE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
    <title>unetsep: the HTTP API</title>
    <link rel="icon" href="static/icon.svg">
    <link rel="stylesheet" href="static/app.css">
  </head>
  <body>
    <main class="api">
      <p><a href="./">Back to the app</a></p>
      <h1>The HTTP API</h1>
{content}
    </main>
  </body>
</html>
"""


def render(document: Document) -> str:
    """The document as a page."""
    return PAGE.replace("{content}", "\n".join(_content(document)))


def _content(document: Document) -> Iterator[str]:
    yield f"<p>{html.escape(document['info']['description'])}</p>"
    example = (
        "curl -F file=@song.mp3 http://127.0.0.1:8421/separate\n"
        "curl -F file=@song.mp3 -F wait=true -o stems.zip http://127.0.0.1:8421/separate"
    )
    yield f"<pre>{html.escape(example)}</pre>"
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"<section><h2><code>{method.upper()} {html.escape(path)}</code></h2>"
            yield f"<p><strong>{operation['summary']}.</strong> "
            yield f"{html.escape(operation.get('description', ''))}</p>"
            body = operation.get("requestBody", {}).get("content", {})
            for form in body.values():
                yield _table("Field", form["schema"]["properties"])
            yield _table("Answer", operation["responses"])
            yield "</section>"
    yield "<section><h2>A job</h2>"
    yield _table("Field", document["components"]["schemas"]["Job"]["properties"])
    yield "</section>"


def _table(head: str, rows: Mapping[str, Document]) -> str:
    cells = [
        f'<tr><th scope="row"><code>{html.escape(name)}</code></th>'
        f"<td>{html.escape(_words(row))}</td></tr>"
        for name, row in rows.items()
    ]
    return (
        f'<table><thead><tr><th scope="col">{head}</th><th scope="col">Meaning</th></tr></thead>'
        f"<tbody>{''.join(cells)}</tbody></table>"
    )


def _words(row: Document) -> str:
    """What is said of a field, its choices and its default."""
    parts = [row.get("description", "")]
    if "enum" in row:
        parts.append(f"One of {', '.join(row['enum'])}.")
    if "default" in row:
        parts.append(f"Default: {str(row['default']).lower()}.")
    return " ".join(filter(None, parts))
