"""The API as an OpenAPI 3.1 document for programs, and as a plain page for people.

The page is generated here without scripts: the usual viewers load theirs from other hosts.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

from ..audio.formats import BIT_DEPTHS
from ..config import MAX_RATE, MIN_RATE
from ..version import __version__
from .choices import MAX_TRACK, PASSES, formats
from .jobs import ID

Document = dict[str, Any]
ERROR = {"$ref": "#/components/schemas/Error"}
JOB = {"$ref": "#/components/schemas/Job"}
JSON = "application/json"
ANY = "*/*"  # audio, pictures or scripts: the response says which
GONE = "There is no such job or file, or it was removed."
NOT_DONE = "The job is not done, or it failed."


def describe() -> Document:
    """The API as an OpenAPI document; a test checks it against the served addresses."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "unetsep",
            "version": __version__,
            "description": "Splits songs into stems. Send a song, poll its job, download the "
            'stems. Errors are JSON with one sentence: {"error": "..."}.',
        },
        "paths": _guarded(_paths()),
        "components": {"schemas": _schemas()},
    }


def _guarded(paths: Document) -> Document:
    """Add the responses that every address may give."""
    for methods in paths.values():
        for operation in methods.values():
            responses = _errors(
                {
                    "403": "The request is from another site, or for a host name that --allow-host "
                    "does not allow.",
                    "500": "A mistake of the app: its terminal says more.",
                }
            ) | {"503": _file("Too many clients are connected: retry later.", "text/plain")}
            for status, response in responses.items():
                operation["responses"].setdefault(status, response)
    return paths


def _paths() -> Document:
    zip_file = _file("A zip with all stems.", "application/zip")
    parts = {
        "206": _file("The part, or parts, that Range asks for.", ANY),
        "400": _file("Range is invalid.", "text/plain"),
        "416": _file("Range lies beyond the end.", "text/plain"),
    }
    return {
        "/separate": {
            "post": {
                "summary": "Send a song",
                "description": "Answers 202 with a job at once. With wait=true it answers with a "
                "zip of the stems once they are done, and removes the job; disconnecting earlier "
                "cancels it.",
                "parameters": [
                    _parameter("id", "query", {"type": "string", "pattern": f"^{ID}$"})
                    | {
                        "description": "The job's id, chosen at random by the client. With it the "
                        "client can remove the job even before it has read the response."
                    }
                ],
                "requestBody": {"required": True, "content": {"multipart/form-data": _form()}},
                "responses": {
                    "200": zip_file,
                    "202": _json("The job; Location is its address.", JOB),
                    **_errors(
                        {
                            "400": "Not a form, no file, an empty file, or the upload was cut off.",
                            "409": "There is already a job with this id.",
                            "408": "The upload was too slow.",
                            "413": "The file is too large; it is refused during the upload.",
                            "422": "A field is invalid, or was sent as a parameter of the address; "
                            "with wait=true also: separation failed.",
                            "429": "Too many songs are waiting: retry after Retry-After seconds.",
                            "500": "A mistake of the app; with wait=true also: the process that "
                            "separates crashed. Its terminal says more.",
                            "503": "The app was stopped before the song was done.",
                            "507": "There is not enough disk space.",
                        }
                    ),
                },
            }
        },
        "/jobs": _get(
            "Get several jobs",
            {
                "200": _json(
                    "The jobs.",
                    {"type": "object", "properties": {"jobs": {"type": "array", "items": JOB}}},
                ),
                **_errors({"422": "A parameter is not id."}),
            },
            description="Removed jobs are left out. There is no list of all jobs: a job can "
            "only be seen by its id.",
            parameters=[_parameter("id", "query", {"type": "array", "items": {"type": "string"}})],
        ),
        "/jobs/{id}": {
            **_get(
                "Get a job",
                {"200": _json("The job.", JOB), **_errors({"404": GONE})},
                parameters=[_parameter("id")],
            ),
            "delete": {
                "summary": "Cancel a job, or remove it with its stems",
                "parameters": [_parameter("id")],
                "responses": {
                    "204": {"description": "The job was removed."},
                    **_errors({"404": GONE}),
                },
            },
        },
        "/jobs/{id}/stems.zip": _get(
            "Download all stems",
            {
                "200": zip_file,
                **parts,
                **_errors({"404": GONE, "409": NOT_DONE, "507": "No room for the zip."}),
            },
            parameters=[_parameter("id")],
        ),
        "/jobs/{id}/{path}": _get(
            "Download a stem, or the player",
            {"200": _file("The file.", ANY), **parts, **_errors({"404": GONE, "409": NOT_DONE})},
            description="stems/vocals.wav and so on, as the job lists them. player/ is a "
            "page that plays the stems, if player=true was sent.",
            parameters=[_parameter("id"), _parameter("path")],
        ),
        "/choices": _get(
            "Models, formats and limits", {"200": _json("What can be chosen.", {"type": "object"})}
        ),
        "/health": _get(
            "Whether jobs are processed",
            {
                "200": _json("They are.", {"type": "object"}),
                "503": _json("They are not: restart the app.", {"type": "object"}),
            },
        ),
        "/metrics": _get(
            "Metrics for Prometheus",
            {"200": _file("Text without names of songs.", "text/plain")},
        ),
        "/openapi.json": _get(
            "This page as an OpenAPI document", {"200": _json("OpenAPI 3.1.", {"type": "object"})}
        ),
    }


def _get(summary: str, responses: Document, **more: Any) -> Document:
    return {"get": {"summary": summary, **more, "responses": responses}}


def _form() -> Document:
    text = {"type": "string"}
    boolean = {"type": "boolean", "default": False}
    properties = {
        "file": text | {"format": "binary", "description": "The song."},
        "model": text | {"description": "A model of /choices; the default is the first."},
        "stems": text | {"description": "Only these, separated by commas."},
        "two_stems": text | {"description": "This stem, and the rest as no_STEM."},
        "without": text | {"description": "One file: all but this stem."},
        "format": text | {"enum": [row["name"] for row in formats()], "default": "wav"},
        "bit_depth": text | {"enum": list(BIT_DEPTHS), "default": "auto"},
        "bitrate": text | {"description": "Of lossy formats, such as 192k."},
        "track": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_TRACK,
            "description": "Sound track of a video, from 1.",
        },
        "sample_rate": {
            "type": "integer",
            "minimum": MIN_RATE,
            "maximum": MAX_RATE,
            "description": "Of the stems, in Hz, such as 48000; the default is the song's.",
        },
        "start": text | {"description": "Where to start: seconds, or 1:30."},
        "duration": text | {"description": "How much to separate: seconds, or 1:30."},
        "passes": text
        | {
            "enum": list(PASSES),
            "default": "1",
            "description": "As --passes of unetsep separate; takes almost that many times longer.",
        },
        "player": boolean | {"description": "Also make the page that plays the stems."},
        "wait": boolean | {"description": "Answer with the zip instead of a job."},
    }
    return {"schema": {"type": "object", "required": ["file"], "properties": properties}}


def _schemas() -> Document:
    def nullable(kind: str, description: str) -> Document:
        return {"type": [kind, "null"], "description": description}

    job = {
        "id": {
            "type": "string",
            "description": "A secret: anyone who knows it can see and remove the job.",
        },
        "name": {"type": "string", "description": "Name of the song, from its file name."},
        "state": {"type": "string", "enum": ["uploading", "queued", "running", "done", "failed"]},
        "model": nullable("string", "Model that separates it."),
        "before": nullable("integer", "Songs ahead of this one, while it waits."),
        "stage": nullable("string", "separating or preparing (the player)."),
        "progress": nullable("number", "0 to 1; null if the length of the song is unknown."),
        "seconds_left": nullable("number", "Estimate while it runs."),
        "error": nullable("string", "Why it failed, in one sentence."),
        "seconds": nullable("number", "Length of the stems."),
        "gain_db": nullable("number", "Gain applied to all stems so that none clips."),
        "warnings": {"type": "array", "items": {"type": "string"}},
        "stems": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Addresses by name.",
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
    """Description, choices and default of a field."""
    parts = [row.get("description", "")]
    if "enum" in row:
        parts.append(f"One of {', '.join(row['enum'])}.")
    if "default" in row:
        parts.append(f"Default: {str(row['default']).lower()}.")
    return " ".join(filter(None, parts))
