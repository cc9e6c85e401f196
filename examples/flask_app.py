"""Stems in a web application of your own.

    pip install flask
    flask --app examples/flask_app.py run
    curl -F song=@song.mp3 http://127.0.0.1:5000/stems -o stems.zip

One song is separated at a time, with a model that is loaded once. `unetsep app` is a complete
service, with a queue, limits and a page; this shows how little a route of your own needs.
"""

from __future__ import annotations

import tempfile
import threading
import zipfile
from pathlib import Path
from typing import IO

from flask import Flask, Response, request, send_file

import unetsep
from unetsep.audio.decoder import AUDIO_SUFFIXES

MAX_BYTES = 200 * 1024**2


def create_app(model: str | Path | unetsep.Separator = "default") -> Flask:
    """The application; `flask run` calls this."""
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BYTES
    separator = model if isinstance(model, unetsep.Separator) else unetsep.Separator(model)
    lock = threading.Lock()

    @app.errorhandler(413)
    def too_large(_: Exception) -> tuple[dict[str, str], int]:
        return {"error": f"the form is too large: a song may have {MAX_BYTES >> 20} MB"}, 413

    @app.post("/stems")
    def stems() -> Response | tuple[dict[str, str], int]:
        upload = request.files.get("song")
        if upload is None or not upload.filename:
            return {"error": "send the song as the form's field song"}, 400
        with tempfile.TemporaryDirectory() as folder:
            # Of the client's file name only a known suffix reaches the disk.
            suffix = Path(upload.filename).suffix.lower()
            song = Path(folder) / f"song{suffix if suffix in AUDIO_SUFFIXES else ''}"
            try:
                upload.save(song)
                with lock:
                    report = unetsep.separate_to_files(
                        song, Path(folder) / "out", model=separator, container="flac"
                    )
                answer = archive(report.stems)
            except (OSError, unetsep.WritingError):  # such as a full disk
                return {"error": "the server could not store the song or its stems"}, 507
            except unetsep.UnetsepError as error:
                return {"error": str(error).replace(str(song), "the song")}, 422
            return send_file(answer, mimetype="application/zip", download_name="stems.zip")

    return app


def archive(files: dict[str, Path]) -> IO[bytes]:
    """A zip in a file without a name, uncompressed since flac is already compressed."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the answer closes it)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as target:
        for path in files.values():
            target.write(path, path.name)
    file.seek(0)
    return file
