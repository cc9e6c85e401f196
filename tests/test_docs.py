"""The documentation says only what is true."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from string import Template
from typing import Any, NamedTuple

import click
import jsonschema
import pytest
import yaml

import unetsep
from tests.listen.browser import CONTRASTS, chromium, complaints, requests, screen
from tests.web import Quiet, serving
from unetsep.cli import main
from unetsep.train.evaluation.published import PUBLISHED
from unetsep.weights.manifest import list_models, manifest

ROOT = Path(__file__).parent.parent
AT_TOP = ("README.md", "CONTRIBUTING.md")
PAGES = [*(ROOT / name for name in AT_TOP), *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST_SENTENCE = 30
# A full stop behind these ends no sentence.
ABBREVIATIONS = ("al", "e.g", "i.e", "cf", "vs")
SOURCES = [
    path
    for folder in ("unetsep", "benchmarks", "recipes", "examples")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".py", ".sh")
]
TEXTS = [*SOURCES, *PAGES, ROOT / "CHANGELOG.md"]
# Named like modules: a group of entry points, and what tests make or miss.
NO_MODULES = {"unetsep.losses", "unetsep.py", "unetsep.nothing"}
LANGUAGES = {"bash", "python", "text"}


def page_name(page: Path) -> str:
    """A page's path from the root on."""
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=page_name)


class Fence(NamedTuple):
    """A block of a page between two lines of three backticks."""

    language: str
    text: str


def fences(page: Path) -> list[Fence]:
    """All blocks; a fence that is never closed is an error."""
    parts = re.split(r"^ *```(.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(parts) % 4 == 1, f"{page.name}: a fence is not closed"
    return [Fence(*parts[i : i + 2]) for i in range(1, len(parts), 4)]


def command_lines(page: Path) -> Iterator[str]:
    """Lines of shell blocks, continued lines joined, and commands in running text."""
    for fence in fences(page):
        if fence.language == "bash":
            for line in fence.text.replace("\\\n", " ").splitlines():
                yield line.split(" #")[0].strip()
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`([^`]+)`", text):
        if re.match(r"(unetsep|make|python|sh) \w", span):
            yield " ".join(span.split())


def commands(page: Path) -> Iterator[list[str]]:
    """Words of each command; what a page says once as ``NAME="words"`` is put in for $NAME."""
    values: dict[str, str] = {}
    for line in command_lines(page):
        values |= dict(re.findall(r'^(\w+)="(.*)"$', line))
        yield shlex.split(Template(line).safe_substitute(values))


def check_unetsep(words: list[str]) -> None:
    """Subcommand, options, and their values where they are choices."""
    command: click.Command = main
    context = click.Context(command, **command.context_settings)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None
        command, context = found, click.Context(found, parent=context)
    values, _, order = command.make_parser(context).parse_args(list(words))
    for parameter in order:
        value = values.get(parameter.name)
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            parameter.type.convert(value, parameter, context)


def make_targets() -> list[str]:
    """Names at the beginnings of the Makefile's rules."""
    return re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def check_script(words: list[str]) -> None:
    """The script is there, and it, one beside it or a kind of data set declares each option."""
    script = ROOT / words[0]
    assert script.is_file()
    if script.suffix == ".py":
        files = [*script.parent.glob("*.py"), *(ROOT / "unetsep/train/data").glob("*.py")]
        source = "".join(path.read_text("utf-8") for path in files)
        for word in words[1:]:
            assert not word.startswith("--") or f'"{word.split("=")[0]}"' in source, word


def check(words: list[str]) -> bool:
    """Whether a command is one that can be checked; then it is right."""
    try:
        if words[:1] == ["make"]:
            assert words[1] in make_targets()
        elif words[:1] in (["python"], ["sh"]) and words[1].endswith((".py", ".sh")):
            check_script(words[1:])
        elif words[:1] == ["pip"] or words[:2] == ["docker", "build"]:
            return False
        elif "unetsep" in words:  # also behind torchrun, srun, docker run and eval
            check_unetsep(words[words.index("unetsep") + 1 :])
        else:
            return False
    except (AssertionError, click.ClickException) as error:
        raise AssertionError(f"{shlex.join(words)}: {error!r}") from error
    return True


@each_page
def test_commands_in_the_documentation_exist(page: Path) -> None:
    for words in commands(page):
        check(words)


def test_no_command_is_followed_by_a_comment_which_zsh_and_cmd_would_read_as_words() -> None:
    blocks = [fence.text for page in PAGES for fence in fences(page) if fence.language == "bash"]
    assert len(blocks) >= 130
    assert not [text for text in blocks if re.search(r"(^|\s)#", text)]


def test_no_command_of_the_documentation_is_overlooked() -> None:
    assert sum(check(words) for page in PAGES for words in commands(page)) >= 370


def test_a_command_that_is_wrong_is_noticed() -> None:
    for words in ("unetsep nothing", "unetsep eval --nothing", "unetsep eval --metrics nothing"):
        with pytest.raises(AssertionError):
            check(words.split())
    for words in ("make nothing", "python benchmarks/nothing.py", "python benchmarks/gpu.py --no"):
        with pytest.raises(AssertionError):
            check(words.split())


@each_page
def test_every_fence_names_its_language(page: Path) -> None:
    for fence in fences(page):
        assert fence.language in LANGUAGES, fence.text


def imports_of(source: str) -> Iterator[tuple[str, str | None]]:
    """Modules that a program imports, and the names it takes from them."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def test_python_in_the_documentation_compiles_and_its_imports_exist() -> None:
    count = 0
    for page in PAGES:
        for fence in fences(page):
            if fence.language != "python":
                continue
            compile(fence.text, page.name, "exec")
            for module, name in imports_of(fence.text):
                if module.partition(".")[0] == "unetsep":
                    found = importlib.import_module(module)
                    assert name is None or hasattr(found, name), f"{page.name}: {module}.{name}"
                    count += 1
    assert count >= 7


def slug(heading: str) -> str:
    """The anchor of a heading."""
    words = re.sub(r"[^\w\s-]", "", heading.replace("`", "").strip().lower())
    return re.sub(r"[\s-]+", "-", words)


@each_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)", page.read_text("utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), flags=re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name}: {target}"


def paragraphs(page: Path) -> list[str]:
    """Running text and list items, each in one line; no tables, code, headings or comments."""
    text = re.sub(r"^ *```.*?^ *```", "\n", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(
        r"<!--.*?-->|^ *(\||#|:::|<).*$|^    (?! )\w+_\w+: .*$", "", text, flags=re.MULTILINE
    )
    text = re.sub(r"^ *([-*]|\d+\.|:) +", "\n", text, flags=re.MULTILINE)
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def sentences(paragraph: str) -> list[str]:
    """A paragraph's sentences; links are their words, code is one word."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
    text = re.sub(r"`[^`]*`", "code", text)
    before = "".join(rf"(?<!\b{re.escape(word)}\.)" for word in ABBREVIATIONS)
    return re.split(rf"{before}(?<=[.!?])(?:[)\"*]*) +|(?<=[.!?][)\"*])\*? +", text)


@each_page
def test_sentences_are_short(page: Path) -> None:
    long = [
        f"{len(sentence.split())} words: {sentence}"
        for paragraph in paragraphs(page)
        for sentence in sentences(paragraph)
        if len(sentence.split()) > LONGEST_SENTENCE
    ]
    assert not long


def test_sentences_and_words_are_counted_as_a_reader_does(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading is none\n\nOne `a b c` two\n[three four](x.md). After et al. (2018) five.\n\n"
        "- Item one. **Bold.** End\n- Item two\n\n| a | table |\n|---|---|\n\n```text\ncode\n```\n"
    )
    found = [sentence for text in paragraphs(page) for sentence in sentences(text)]
    assert [len(sentence.split()) for sentence in found] == [5, 5, 2, 1, 1, 2]


def test_readme_fits_two_screens_and_names_the_licence_on_the_first() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 90
    assert any("CC BY-NC-SA 4.0" in line for line in lines[:10])


def claims() -> list[tuple[str, str]]:
    """README's words, and what holds them true."""
    text = (ROOT / "docs/develop/claims.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", text, flags=re.MULTILINE)
    return [row for row in rows if row[0] != "README says"]


def test_every_claim_of_the_readme_is_held_by_something_that_exists() -> None:
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    rows = claims()
    assert len(rows) >= 25
    for claim, held in rows:
        assert claim in readme, claim
        assert re.search(r"`|README|the manifest", held), claim


def test_the_page_of_pains_has_25_numbered_rows() -> None:
    text = (ROOT / "docs/develop/pains.md").read_text("utf-8")
    assert re.findall(r"^(\d+)\. \*\*", text, flags=re.MULTILINE) == [str(i) for i in range(1, 26)]


def test_no_claim_of_the_readme_is_missing() -> None:
    text = (ROOT / "README.md").read_text("utf-8").partition("## Read on")[0]
    said = [" ".join(row.split("|")[1].split()) for row in re.findall(r"^\| [a-z].*$", text, re.M)]
    said = [each for each in said if each != "model"]
    said += [line.partition("#")[2] for line in re.findall(r"^.*\S +# .*$", text, re.M)]
    for paragraph in re.split(r"\n\n|\n- ", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        if not paragraph.lstrip().startswith(("#", "|", "<")):
            said += re.split(r"(?<=\w\.) (?=[A-Z*[])", " ".join(paragraph.split()))
    pointers = ("[More]", "[Claims]")
    assert len(said) >= 30
    held = [claim for claim, _ in claims()]
    for each in said:
        bare = each.strip().removeprefix("- ")
        found = any(claim in bare or bare in claim for claim in held)
        assert found or bare.startswith(pointers), f"docs/develop/claims.md lacks: {bare}"


def test_figures_beside_other_tools_are_those_that_were_measured() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    folder = ROOT / "docs/research/performance"

    def measured(file: str, seconds: int, key: str) -> list[float]:
        lengths = json.loads((folder / file).read_text("utf-8"))["results"]["lengths"]
        (rows,) = (each["rows"] for each in lengths if each["seconds"] == seconds)
        by_tool = {row["tool"]: row[key] for row in rows}
        return [by_tool[tool] for tool in ("unetsep", "spleeter", "openunmix", "demucs")]

    walls = [f"{value:.1f} s" for value in measured("peers.json", 180, "wall")]
    peaks = [f"{value:,.0f} MiB" for value in measured("peers-600.json", 600, "peak_mib")]
    assert f"| a 3-minute song | {' | '.join(walls)} |" in readme
    assert f"| memory, 10 minutes | {' | '.join(peaks)} |" in readme
    means = {row.name: row.mean for row in PUBLISHED}
    spleeter, umx = means["Spleeter 4stems, masks"], means["Open-Unmix UMXHQ"]
    assert f"| mean SDR, whole songs | | {spleeter:.2f} | {umx:.2f} | 9.00 |" in readme
    assert f"Spleeter has {means['Spleeter 4stems, Wiener filter']:.2f} with its" in readme
    assert f"not for commercial use, {means['Open-Unmix UMXL']:.2f}." in readme
    guided = manifest().checkpoints["guided"].scores["mean"]
    assert f"| mean SDR, excerpts | {guided:.2f} | | | |" in readme


def test_memory_with_torch_for_cpus_is_what_was_measured() -> None:
    page = (ROOT / "docs/research/performance.md").read_text("utf-8")
    _, _, table = page.partition("| tool, song of 600 s, torch for CPUs | peak memory |")
    file = ROOT / "docs/research/performance/peers-600-cpu-build.json"
    (length,) = json.loads(file.read_text("utf-8"))["results"]["lengths"]
    for row, label in zip(
        length["rows"], ("unetsep (`guided`, the default)", "unetsep `fast`"), strict=True
    ):
        assert f"| {label} | {row['peak_mib']:.0f} MiB |" in table
        assert len(length["runs"][row["tool"]]) == 3


def test_rows_of_the_processor_without_bf16_are_those_that_were_measured() -> None:
    page = (ROOT / "docs/research/performance.md").read_text("utf-8")
    peers = json.loads((ROOT / "docs/research/performance/peers-avx2.json").read_text("utf-8"))
    assert len(peers["results"]["lengths"]) == 2
    for length in peers["results"]["lengths"]:
        ours, fast, spleeter = (
            [run["wall"] for run in length["runs"][tool]]
            for tool in ("unetsep", "unetsep fast", "spleeter")
        )
        cells = [
            f"{length['seconds']:.0f} s",
            *(f"{median(x):.1f} s" for x in (ours, fast, spleeter)),
        ]
        for walls in (ours, fast):
            ratios = sorted(theirs / own for theirs, own in zip(spleeter, walls, strict=True))
            cells.append(f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        assert f"| {' | '.join(cells)} |" in page


def test_shares_of_the_matrix_products_rate_are_those_that_were_measured() -> None:
    page = (ROOT / "docs/research/profile.md").read_text("utf-8")
    file = ROOT / "docs/research/performance/network.json"
    rows = json.loads(file.read_text("utf-8"))["results"]["rows"]
    assert len(rows) == 6
    for row in rows:
        time, share = f"{1000 * row['seconds']:.1f} ms", f"{row['share']:.0%}"
        rates = f"{row['gflops']:.1f} | {row['matmul_gflops']:.1f}"
        kind = f"{row['network']} | {row['precision']} | {row['gflop']:.2f}"
        assert f"| {kind} | {time} | {rates} | {share} |" in page


def test_pages_agree_on_how_much_faster_the_fast_model_is() -> None:
    for file in ("peers.json", "peers-avx2.json"):
        peers = json.loads((ROOT / "docs/research/performance" / file).read_text("utf-8"))
        (rows,) = (each["rows"] for each in peers["results"]["lengths"] if each["seconds"] == 180)
        (fast,) = (row for row in rows if row["tool"] == "unetsep fast")
        assert 0.475 <= fast["least"] <= fast["most"] <= 0.675  # rounded to twentieths
    pages = ("README.md", "docs/start/which-model.md", "docs/reference/models/fast.md")
    for page in pages:
        text = " ".join((ROOT / page).read_text("utf-8").split())
        assert re.search(r"0\.5 to 0\.65 of (the|that) time", text), page
        assert not re.search(r"(half|two thirds of) the time", text), page


def test_seven_models_differ_in_their_loss_alone() -> None:
    seven = [e for e in list_models() if "l1" in e.training.get("trained_with", ())]
    assert len(seven) == 7
    assert len({entry.loss for entry in seven}) == 7
    for part in ("settings", "songs", "command", "data"):
        assert len({json.dumps(entry.training[part], sort_keys=True) for entry in seven}) == 1
    assert len({json.dumps(entry.config, sort_keys=True) for entry in seven}) == 1


PACKAGE = '''
def power(x: float, y: int, *more: str, base: float = 2.0, n: int = 1) -> float:
    """Raise to a power, not ``--base``, in [0, 1].

        x^y

    - one, if ``y``
      is 0

    Parameters
    ----------
    x, y
        Base
        and exponent.

    Returns
    -------
    float
        The power.

    Raises
    ------
    ValueError, TypeError
        For others.

    Examples
    --------
    >>> power(2, 3)
    8
    """
'''
SHOWN = r"""
### `power`

```text
power(x, y, *more, base=2.0, n=1) -> float
```

Raise to a power, not `--base`, in \[0, 1\].

```text
x^y
```

- one, if `y` is 0

- `x` (`float`), `y` (`int`): Base and exponent.

Returns:

- `float`: The power.

Raises:

- `ValueError`, `TypeError`: For others.

```text
>>> power(2, 3)
8
```

<!-- end of reference -->
"""


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs/reference/python.md").read_text("utf-8")
    shown = re.findall(r"^### `(\w+)`$", page, flags=re.MULTILINE)
    assert sorted(shown) == sorted({*unetsep.__all__} - {"__version__"})


def test_pages_made_from_the_program_are_up_to_date() -> None:
    pages = importlib.import_module("reference").pages()
    assert len(pages) == 4
    for path, text in pages.items():
        assert path.read_text("utf-8") == text, f"{path}: run python recipes/reference.py"


def test_each_field_of_the_json_is_explained() -> None:
    page = (ROOT / "docs/reference/json.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .+ \| (.*) \|$", page, flags=re.MULTILINE)
    assert len(rows) >= 30
    assert [name for name, text in rows if not text.strip()] == []


def test_the_report_that_is_shown_follows_the_schema() -> None:
    schema = json.loads((ROOT / "unetsep/library/schema.json").read_text("utf-8"))
    page = (ROOT / "docs/reference/json.md").read_text("utf-8")
    (shown,) = re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL)
    jsonschema.validate(json.loads(shown), schema)


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r'"([\w./-]+\.md)"', (ROOT / "zensical.toml").read_text("utf-8"))
    assert {f"docs/{page}" for page in listed} | {*AT_TOP} == set(map(page_name, PAGES))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a dead link, or an anchor that is not there, is an error."""
    folder = tmp_path_factory.mktemp("documentation")
    config = folder / "zensical.toml"
    text = (ROOT / "zensical.toml").read_text("utf-8")
    config.write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / "docs", folder / "docs")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(config)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "site"


def test_the_site_is_complete_and_can_be_searched(site: Path) -> None:
    assert len(list(site.rglob("index.html"))) == len(PAGES) - len(AT_TOP)
    found = json.loads((site / "search.json").read_text("utf-8"))["items"]
    assert any("separate_to_files" in item["title"] for item in found)


def test_parameters_that_share_a_line_have_types_of_their_own() -> None:
    page = (ROOT / "docs/reference/python.md").read_text("utf-8")
    assert "- `container` (`str`), `bit_depth` (`str`): " in page
    assert "- `start` (`float | str`), `duration` (`float | str | None`): " in page


def test_the_reference_shows_formulas_lists_and_signatures(tmp_path, monkeypatch) -> None:
    (tmp_path / "unetsep.py").write_text(PACKAGE)
    recipe = importlib.import_module("python_reference")
    monkeypatch.setattr(recipe, "ROOT", tmp_path)
    marked = "before\n<!-- reference: power -->\nold\n<!-- end of reference -->\nafter\n"
    assert recipe.with_reference(marked) == f"before\n<!-- reference: power -->\n{SHOWN}after\n"
    assert recipe.with_reference(recipe.with_reference(marked)) == recipe.with_reference(marked)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("browser")) as chrome:
        yield chrome


def test_a_search_in_the_browser_finds_a_page(site: Path, driver: Any) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    handler = functools.partial(Quiet, directory=str(site))
    with serving(handler) as address, screen(driver, 1280, 900):
        driver.get(f"{address}/")
        wait = WebDriverWait(driver, 30)

        def search_is_open(driver: Any) -> bool:
            if driver.execute_script("return !!document.activeElement.shadowRoot"):
                return True
            driver.find_element("tag name", "body").send_keys(Keys.CONTROL, "k")
            return False

        wait.until(search_is_open)
        driver.switch_to.active_element.send_keys("karaoke")
        shown = "return document.activeElement.shadowRoot.textContent"
        wait.until(lambda d: "Karaoke for an album" in d.execute_script(shown))
        assert complaints(driver) == []
        hosts = {url.split("/")[2] for url in requests(driver) if url.startswith("http")}
    assert hosts == {address.removeprefix("http://")}


def test_read_the_docs_builds_the_site_as_make_does() -> None:
    config = yaml.safe_load((ROOT / ".readthedocs.yaml").read_text("utf-8"))
    (build,) = (line for line in config["build"]["commands"] if line.startswith("zensical"))
    assert f"$(VENV)/bin/{build}\n" in (ROOT / "Makefile").read_text("utf-8")
    assert 'pip install ".[docs]"' in config["build"]["commands"]
    assert "make docs\n" in (ROOT / ".ci/run").read_text("utf-8")


def test_the_site_loads_nothing_from_another_host(site: Path) -> None:
    loaded = []
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        loaded += re.findall(r'<(?:script|img|iframe|source|audio)[^>]* src="([^"]+)"', text)
        links = re.findall(r"<link[^>]*>", text)
        loaded += [re.findall(r'href="([^"]+)"', link)[0] for link in links]
        assert 'data-md-component="source"' not in text  # it would ask GitHub for its stars
    assert len(loaded) > 50
    assert not [address for address in loaded if "//" in address]


def test_messages_in_the_troubleshooting_page_exist_in_the_program() -> None:
    files = list((ROOT / "unetsep").rglob("*.py"))
    assert len(files) >= 95
    sources = "".join(path.read_text("utf-8") for path in files)
    flat = re.sub(r'"\s*\n\s*f?"', "", sources)
    page = (ROOT / "docs/reference/errors.md").read_text("utf-8")
    for message in (
        "does not exist",
        "is a folder where an audio file was expected",
        "is not a regular file",
        "is not audio that can be read",
        "it has no audio track",
        "holds no audio samples",
        "is cut short: its header promises",
        "NaN or infinite samples",
        "samples beyond",
        "and was stopped",
        "has no end mark, as if it was cut off",
        "may be cut short",
        "is damaged in places; ffmpeg says",
        "on ffmpeg decoded it, since libsndfile could not",
        "may be damaged or misnamed: libsndfile could not read it",
        "files joined into one, which are",
        "already exists: use --overwrite or --skip-existing",
        "appeared while its song was being separated",
        "no record says what made",
        "was changed after it was made",
        "another run is working on it",
        "stdout took no more reports",
        "Not audio by name, skipped",
        "would both be written to",
        "would be written over an input",
        "All stems were lowered by",
        "was asked for but torch",
        "could not be downloaded from",
        "was damaged or replaced: its SHA-256 is",
        "does not fit its own config",
        "out of memory; close other programs or use --device cpu",
    ):
        assert message in page, message
        assert message in flat, message


def test_extras_named_in_the_documentation_exist() -> None:
    table = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = [
        extra
        for page in PAGES
        for extra in re.findall(r"unetsep\[(\w+)\]", page.read_text("utf-8"))
    ]
    assert len(extras) >= 4
    for extra in extras:
        assert f"\n{extra} = [" in table, extra


def resolve(name: str) -> object:
    """The module, or the object in a module, that a dotted name means."""
    found: object = unetsep
    done = "unetsep"
    for part in name.split(".")[1:]:
        done += f".{part}"
        if not hasattr(found, part):
            importlib.import_module(done)
        found = getattr(found, part)
    return found


def test_dotted_names_in_sources_and_pages_lead_to_something() -> None:
    names, dead = set(), []
    for path in [*TEXTS, *(ROOT / "tests").rglob("*.py")]:
        for name in re.findall(r"(?<![\w./])unetsep(?:\.[A-Za-z_]\w*)+", path.read_text("utf-8")):
            names.add(name)
            if name in NO_MODULES:
                continue
            try:
                resolve(name)
            except (ImportError, AttributeError):
                dead.append(f"{path.relative_to(ROOT)}: {name}")
    assert not dead
    assert len(names) >= 50


def test_files_named_in_sources_and_pages_exist() -> None:
    named = r"(?<![\w./~-])(?:unetsep|benchmarks|recipes|tests|docs)/[\w./-]*\w"
    pairs = [(path, name) for path in TEXTS for name in re.findall(named, path.read_text("utf-8"))]
    assert len(pairs) >= 60
    dead = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, name in pairs
        # The page of the pains names tests from their own folder on.
        if not (ROOT / name).exists() and not (ROOT / "tests" / name).exists()
    ]
    assert not dead


@each_page
def test_code_named_in_a_page_exists(page: Path) -> None:
    names = re.findall(r"`([\w/]+\.(?:py|sh))`", page.read_text("utf-8"))
    assert page.name != "method.md" or len(names) >= 8
    for name in names:
        homes = (ROOT / name, ROOT / "unetsep" / name, ROOT / "tests" / name)
        assert any(home.is_file() for home in homes), name


@each_page
def test_tests_named_in_a_page_exist(page: Path) -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", page.read_text("utf-8"))
    assert len(named) >= {"pains.md": 41, "claims.md": 25}.get(page.name, 0)
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text("utf-8"), test


def test_all_bundled_models_mix_bins_as_the_method_says() -> None:
    page = (ROOT / "docs/understand/method.md").read_text("utf-8")
    assert "All our bundled models have these layers" in page
    guides = manifest().guides
    bundled = [e for e in list_models() if e.bundled and e.name not in guides]
    assert len(bundled) == 10
    assert all(entry.config["bin_units"] == 32 for entry in bundled)


DESKTOP = {
    "site",
    "python",
    "command-line",
    "errors",
    "song-to-stems",
    "notebook",
    "claims",
    "listen",
}
WIDER = """
const wide = [...document.querySelectorAll("article *")].filter(
  (e) => !e.closest("pre, svg") && e.getBoundingClientRect().right > innerWidth + 1);
const shown = wide.slice(0, 3).map((e) => e.outerHTML.slice(0, 200));
return [document.scrollingElement.scrollWidth > innerWidth, shown];
"""


@contextmanager
def no_scripts(driver: Any) -> Iterator[None]:
    """Pages load sooner, and look the same but for what scripts add."""
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    yield
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def assert_fit(driver: Any, pages: list[Path]) -> None:
    """No page is wider than the screen, or loads anything from the network."""
    for page in pages:
        driver.get(page.as_uri())
        scrolls, wide = driver.execute_script(WIDER)
        assert not scrolls, page
        assert not wide, f"{page}: {wide}"
    assert not [address for address in requests(driver) if address.startswith("http")]


def test_every_page_fits_a_phone(site: Path, driver: Any) -> None:
    pages = sorted(site.rglob("index.html"))
    assert len(pages) >= 45
    with screen(driver, 390, 900), no_scripts(driver):
        assert_fit(driver, pages)


def test_pages_of_each_kind_fit_a_desktop(site: Path, driver: Any) -> None:
    pages = [page for page in site.rglob("index.html") if page.parent.name in DESKTOP]
    assert {page.parent.name for page in pages} == DESKTOP
    with screen(driver, 1280, 900):
        assert_fit(driver, pages)
    current = CONTRASTS.replace("h1, h2, h3, p, a, label, button, select", ".md-nav__link--active")
    for scheme in ("light", "dark"):
        with screen(driver, 1280, 900, prefers_color_scheme=scheme):
            driver.get((site / "how-to/listen/index.html").as_uri())
            contrasts = driver.execute_script(current)
        assert contrasts
        assert [each for each in contrasts if each[1] < 4.5] == [], scheme
