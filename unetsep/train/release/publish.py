"""Upload of exported checkpoints to the Hugging Face hub."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import WeightsError
from ...locations import as_path
from ...storage import file_sha256, shell_word
from ...weights.load import carry_guide
from ...weights.manifest import SUFFIX, Checkpoint, Manifest, add_to_manifest, read_manifest
from ..config import TrainingError
from .export import EXPORTS, write_entry

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
# What a card says of each model, from which the licence of the whole follows.
LICENCE = re.compile(r"licence of the weights (.+)\.$", re.MULTILINE)

# Licences that weights are likely to have, of those that the hub knows by these names; it
# refuses others (https://huggingface.co/docs/hub/repositories-licenses).
HUB_LICENCES = (
    *("apache-2.0", "mit", "unlicense", "bsd-2-clause", "bsd-3-clause", "cc0-1.0"),
    *("gpl-3.0", "lgpl-3.0", "agpl-3.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0"),
    *("cc-by-sa-4.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0"),
    *("cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
)


def publish(
    run: str | Path, repo_id: str, *, private: bool = False, manifest: str | Path | None = None
) -> str:
    """Upload what ``unetsep export`` wrote, and pin its revision.

    The entries in ``<run>/export/*.json``, and in ``manifest`` if it is given, then name the
    repository and the commit that holds the files.

    Parameters
    ----------
    run
        Folder of the run.
    repo_id
        ``organisation/name`` on the hub; it is created if needed.
    private
        Whether a new repository is private.
    manifest
        A manifest to add the entries to.

    Returns
    -------
    str
        The commit.

    Raises
    ------
    TrainingError
        If nothing was exported, or an exported file is damaged or has changed.
    WeightsError
        If the upload fails; the entries are then as before.
    """
    folder = as_path(run, "run") / EXPORTS
    entries = [_read_entry(path, run) for path in sorted(folder.glob("*.json"))]
    if not entries:
        raise TrainingError(
            f"{folder} holds nothing to publish: run unetsep export {shell_word(run)} first"
        )
    if manifest is not None:
        read_manifest(Path(manifest))  # so that a damaged one is an error before the upload
    entries = [dataclasses.replace(entry, repo_id=repo_id) for entry in entries]
    revision = _upload(folder, entries, repo_id, private)
    for entry in entries:
        pinned = dataclasses.replace(entry, revision=revision)
        write_entry(folder / f"{Path(entry.file).stem}.json", pinned)
        if manifest is not None:
            add_to_manifest(Path(manifest), pinned)
    return revision


def _read_entry(path: Path, run: str | Path) -> Checkpoint:
    """The manifest entry in a file, whose checkpoint must have the hash that it names."""
    cure = f"run unetsep export {shell_word(run)} again, or delete {path}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        manifest = Manifest.from_dict({"default": "", "checkpoints": [content]})
        (entry,) = manifest.checkpoints.values()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise TrainingError(f"{path} is not a manifest entry ({error}): {cure}") from error
    file = path.with_suffix(SUFFIX)
    if entry.file != file.name:
        raise TrainingError(f"{path} describes {entry.file!r}, expected {file.name}: {cure}")
    try:
        sha256 = file_sha256(file)
    except OSError as error:
        raise TrainingError(f"{file} cannot be read ({error.strerror}): {cure}") from error
    if sha256 != entry.sha256:
        raise TrainingError(
            f"{file} was changed: its SHA-256 is {sha256[:12]}..., its manifest entry says "
            f"{entry.sha256[:12]}...: {cure}"
        )
    return entry


def _upload(folder: Path, entries: list[Checkpoint], repo_id: str, private: bool) -> str:
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as staging:
        for entry in entries:
            shutil.copyfile(folder / entry.file, Path(staging) / entry.file)
            carry_guide(entry.config.get("guide", ""), folder, Path(staging))
        try:
            api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
            api.create_repo(repo_id, private=private, exist_ok=True)
            # A folder's name need not be UTF-8; a model card must be.
            card = model_card(entries, _current_card(api, repo_id)).encode(
                errors="backslashreplace"
            )
            (Path(staging) / CARD).write_bytes(card)
            names = ", ".join(entry.name for entry in entries)
            commit = api.upload_folder(
                repo_id=repo_id, folder_path=staging, commit_message=f"Add {names}"
            )
        except Exception as error:  # the hub client lets foreign errors through
            texts = [str(each).strip() for each in (error, error.__cause__) if each]
            # A cause may say the same.
            reason = " ".join(dict.fromkeys(text.splitlines()[0] for text in texts if text))
            raise WeightsError(
                f"{repo_id} could not be published: {reason or type(error).__name__}"
            ) from error
    return str(commit.oid)


def _current_card(api: HfApi, repo_id: str) -> str:
    """The model card that a repository has, or nothing."""
    if not api.file_exists(repo_id, CARD):
        return ""
    with tempfile.TemporaryDirectory() as folder:
        card = api.hf_hub_download(repo_id, CARD, local_dir=folder)
        return Path(card).read_text(encoding="utf-8", errors="replace")


def _licence(licences: Iterable[str]) -> list[str]:
    """Lines about the licence for the hub; one that it does not know has only a name."""
    names = [_slug(name) for name in dict.fromkeys(licences)]
    if len(names) == 1 and names[0] in HUB_LICENCES:
        return [f"license: {names[0]}"]
    return ["license: other", f"license_name: {'-and-'.join(names)}"]


def _slug(text: str) -> str:
    return re.sub("[^a-z0-9.]+", "-", text.lower()).strip("-.")


def model_card(entries: Sequence[Checkpoint], card: str = "") -> str:
    """README of a repository: what the files are, their scores, data and licence.

    Parameters
    ----------
    entries
        What is published.
    card
        The repository's current card. Its sections of other models, and any other text, stay.
    """
    front, head, sections = _parts(card)
    titles = {_title(entry) for entry in entries}
    others = [text for text in sections if text.splitlines()[0] not in titles]
    licences = LICENCE.findall("".join(others)) + [entry.licence for entry in entries]
    lines = ["---", *_licence(licences), *front, "---"]
    return "\n".join(lines) + "\n" + head + "".join(others) + "".join(map(_section, entries))


def _parts(card: str) -> tuple[list[str], str, list[str]]:
    """A card's front matter without licence, what stands before its sections, and the sections."""
    if not card:
        text = "\nMusic source separation with [unetsep](https://pypi.org/project/unetsep/).\n\n"
        return ["library_name: unetsep"], text, []
    front: list[str] = []
    text = card
    if matter := re.match(r"---\r?\n(.*?)^---[ \t]*\r?\n", card, re.DOTALL | re.MULTILINE):
        # A value may be a list: lines that are indented or begin with a dash.
        others = re.sub(r"^license(_name)?:.*\n([ \t-].*\n)*", "", matter[1], flags=re.MULTILINE)
        front, text = others.splitlines(), card[matter.end() :]
    head, *sections = re.split(r"^(?=##? )", text.rstrip() + "\n\n", flags=re.MULTILINE)
    return front, head, sections


def _title(entry: Checkpoint) -> str:
    return f"## {entry.name}"


def _section(entry: Checkpoint) -> str:
    lines = [_title(entry), "", entry.description + ".", ""]
    lines += ["```", f"unetsep separate song.wav --model {entry.file}", "```", ""]
    lines += [f"SHA-256 `{entry.sha256}`, licence of the weights {entry.licence}.", ""]
    if "sdr" in entry.scores:
        values = [f"{stem} {value:.2f}" for stem, value in entry.scores["sdr"].items()]
        lines += [f"{', '.join(values)}: {entry.scores.get('definition', 'SDR in dB')}.", ""]
    if "data" in entry.training:
        lines += [f"Trained on {', '.join(entry.training['data'])}.", ""]
    return "\n".join(lines) + "\n"
