"""The page in a real browser: from dropping a song to hearing it, with mouse or keys alone."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.app.serving import LocalApp, run_app, until
from tests.listen.browser import (
    CONTRASTS,
    FROM_RIGHT,
    chromium,
    complaints,
    press,
    requests,
    screen,
)
from tests.signals import music
from unetsep.app.handlers import Handlers
from unetsep.app.jobs import SeparationJob
from unetsep.app.server import AppSettings

# What a mouse does when it drops files on the page.
DROP = """
const files = new DataTransfer();
for (const [name, content] of JSON.parse(arguments[0])) {
  const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
  files.items.add(new File([bytes], name));
}
for (const kind of ["dragover", "drop"])
  document.getElementById("drop").dispatchEvent(
    new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true }),
  );
"""
# What screen readers are told from here on.
ANNOUNCED = """
window.announced = [];
const { announce } = unetsepApp;
unetsepApp.announce = (text) => {
  window.announced.push(text);
  announce.call(unetsepApp, text);
};
"""
# The page looks at its songs every second: here ten times as often.
HURRY = """
const later = window.setTimeout;
if (window === top) window.setTimeout = (what, ms, ...rest) => later(what, ms / 10, ...rest);
"""
# The connection breaks after the next upload, before the answer.
BREAK = """
const { send } = Sender.prototype;
Sender.prototype.send = async function (...values) {
  Sender.prototype.send = send;
  await this.send(...values);
  throw new Error("The upload was interrupted.");
};
"""
MISTAKE = "The app failed unexpectedly: its log says why."
DEAF = "The app does not answer. Is it still running?"
RESTARTED = "The app was restarted with other models. Choose one above, then try again."
GONE = "It was removed, or the app was restarted. Add the song again."


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[LocalApp]:
    settings = AppSettings(
        port=0,
        models=(str(tiny_model), "fast"),
        device="cpu",
        threads=1,
        folder=tmp_path_factory.mktemp("app"),
    )
    with run_app(settings) as served:
        yield served


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def driver(downloads: Path) -> Iterator[Any]:
    with chromium(downloads) as chrome:
        chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": HURRY})
        yield chrome


@pytest.fixture
def page(driver: Any, app: LocalApp) -> Iterator[Any]:
    """The page; nothing may have been complained about, nor asked of another machine."""
    requests(driver)
    driver.get(f"http://127.0.0.1:{app.port}/")
    until(lambda: driver.execute_script("return unetsepApp.choices"))
    yield driver
    # The next test finds no song, even if this one failed.
    driver.execute_script("localStorage.clear(); Storage.prototype.setItem = () => {};")
    for id_ in list(app.queue.jobs):
        app.ask("DELETE", f"/jobs/{id_}")
    assert complaints(driver) == []
    addresses = requests(driver)
    assert len(addresses) >= 5
    here = (f"http://127.0.0.1:{app.port}/", "blob:", "data:", "about:")
    assert [address for address in addresses if not address.startswith(here)] == []


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A short song, and one that takes many seconds."""
    folder = tmp_path_factory.mktemp("songs")
    soundfile.write(folder / "My tune.flac", music(2).T, 44_100)
    wave = np.sin(np.arange(20 * 480_000) / 50) / 4
    soundfile.write(folder / "A <b>long one.flac", wave, 8000, subtype="PCM_16")
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_size)


def states(driver: Any) -> dict[str, str]:
    rows = driver.execute_script(
        "return unetsepApp.rows.map(({ name, status }) => [name, status.textContent])"
    )
    return dict(rows)


def announcements(driver: Any) -> list[str]:
    return list(driver.execute_script("return announced"))


def focus_id(driver: Any) -> str:
    return str(driver.execute_script("return document.activeElement.id"))


def focus_name(driver: Any) -> str:
    return str(driver.switch_to.active_element.accessible_name)


def tab_to(driver: Any, name: str) -> None:
    """Press tab until something of that name has the focus."""
    for _ in range(30):
        if name in focus_name(driver):
            return
        press(driver, "\ue004")
    raise AssertionError(f"nothing called {name} can be reached by the tab key")


def check_look(driver: Any) -> None:
    """Nothing is cut off, everything has a name, and all text can be read."""
    for width, height in ((1280, 900), (390, 844)):
        for scheme in ("light", "dark"):
            with screen(driver, width, height, prefers_color_scheme=scheme):
                assert driver.execute_script(
                    "return document.documentElement.scrollWidth <= innerWidth"
                ), width
                contrasts = driver.execute_script(CONTRASTS)
            assert len(contrasts) >= 12
            assert [each for each in contrasts if each[1] < 4.5] == [], scheme
    with screen(driver, 390, 844):
        for control in driver.find_elements("css selector", "button, select, input, a, progress"):
            if control.is_displayed():
                assert control.accessible_name, control.get_attribute("outerHTML")


def test_times_of_about_an_hour_or_minute_are_shown_as_one(page: Any) -> None:
    spans = (30, 70, 150, 3600, 4300, 5400, 86_400)
    words = [page.execute_script("return spanWords(arguments[0])", seconds) for seconds in spans]
    hours = ["an hour", "an hour", "1.5 hours", "24 hours"]
    assert words == ["a minute", "a minute", "3 minutes", *hours]
    assert page.execute_script("return timeWords(5300)") == "about 1.5 hours left"


def test_two_songs_are_dropped_one_is_cancelled_the_other_heard_and_downloaded(
    page: Any, app: LocalApp, songs: list[Path], downloads: Path
) -> None:
    short = songs[0]
    content = [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in songs[::-1]]
    page.execute_script(DROP, json.dumps(content))
    until(lambda: "%" in states(page).get("A _b_long one", ""))
    until(lambda: re.fullmatch(r"\d+ % · unetsep", page.title))
    until(lambda: any("one song is ahead" in state for state in states(page).values()))
    for row in page.find_elements("css selector", ".song"):
        name = row.find_element("tag name", "h3").text
        assert row.find_element("tag name", "button").accessible_name == f"Cancel: {name}"
    check_look(page)
    page.find_element("css selector", ".song button").click()
    until(lambda: states(page) == {short.stem: "Ready"})
    assert page.title == "1 ready · unetsep"
    check_look(page)
    limits = app.queue.limits
    app.queue.limits = replace(limits, disk_bytes=app.queue.bytes)  # no room for the zip
    page.find_element("link text", "Download all").click()
    refused = "There is not enough disk space: remove finished songs."
    until(lambda: page.find_element("id", "message").text == refused)
    assert ["status of 507" in text for text in complaints(page)] == [True]
    app.queue.limits = limits
    page.find_element("link text", "Download all").click()
    zipped = until(lambda: list(downloads.glob("My tune.zip")))
    (job,) = app.queue.jobs.values()
    assert zipped[0].read_bytes() == (job.folder / "stems.zip").read_bytes()
    page.find_element("css selector", ".song .first").click()
    assert page.find_element("id", "player").accessible_name == short.stem
    page.switch_to.frame("frame")
    until(lambda: page.execute_script("return document.querySelectorAll('.lane').length === 4"))
    page.find_element("id", "play").click()
    until(lambda: page.execute_script("return unetsepPlayer.engine.frame > 4410"))
    page.switch_to.default_content()
    page.find_element("id", "close").click()
    assert focus_name(page) == "Listen: My tune"
    page.refresh()  # the songs are still there
    until(lambda: states(page) == {short.stem: "Ready"})
    page.find_element("xpath", "//button[text()='Remove']").click()
    until(lambda: not app.queue.jobs)
    assert page.find_element("id", "message").text == "My tune was removed."


def test_a_phone_can_use_the_app_by_keyboard_alone(
    page: Any, app: LocalApp, songs: list[Path], tmp_path: Path
) -> None:
    with screen(page, 390, 844):
        tab_to(page, "Quality")
        words = page.find_element("id", "quality-words")
        assert words.get_attribute("aria-live") == "polite"
        assert page.find_element("id", "parts-words").get_attribute("aria-live") is None
        for key, text in (
            ("down", "A little better"),
            ("down", "Every part is less clean"),
            ("up", "A little"),
        ):
            press(page, {"down": "\ue015", "up": "\ue013"}[key])
            assert words.text.startswith(text)
        tab_to(page, "Parts")
        press(page, "Vocals")
        words = page.find_element("id", "parts-words").text
        assert words == "Two files: the voices, and the music for karaoke."
        tab_to(page, "Choose songs")
        page.execute_script(ANNOUNCED)
        empty = tmp_path / "empty.mp3"
        empty.touch()
        page.switch_to.active_element.send_keys(f"{songs[0]}\n{empty}")
        until(lambda: states(page).get("My tune") == "Ready")
        assert states(page)["empty.mp3"] == "The file is empty."
        assert announcements(page)[-3:] == [
            "empty.mp3: The file is empty.",
            "1 song was added. Not added: empty.mp3.",
            "My tune is ready.",
        ]
        (job,) = app.queue.jobs.values()
        assert job.choice.passes == 2
    check_look(page)
    with screen(page, 390, 844):
        tab_to(page, "Listen: My tune")
        press(page, "\ue007")
        until(lambda: page.execute_script("return Boolean(frames[0].unetsepPlayer?.engine)"))
        until(lambda: focus_id(page) == "frame")
        press(page, " ")
        until(lambda: page.execute_script("return frames[0].unetsepPlayer.engine.frame > 4410"))
        press(page, "\ue00c")  # escape
        until(lambda: focus_name(page) == "Listen: My tune")
        tab_to(page, "Remove: My tune")
        press(page, "\ue007")
        until(lambda: not app.queue.jobs)
        assert focus_name(page) == "Remove: empty.mp3"
        press(page, "\ue007")
        until(lambda: not states(page))
        assert focus_id(page) == "files"


def drop(driver: Any, path: Path) -> None:
    content = [(path.name, base64.b64encode(path.read_bytes()).decode())]
    driver.execute_script(DROP, json.dumps(content))


def test_songs_of_another_tab_are_remembered(page: Any, app: LocalApp, songs: list[Path]) -> None:
    other = app.send(songs[0], "Other.flac", player="true").json["id"]
    app.wait(other)
    # What another tab does when it has sent a song.
    page.execute_script("localStorage.setItem('unetsep-jobs', arguments[0])", json.dumps([other]))
    drop(page, songs[0])
    until(lambda: states(page) == {"My tune": "Ready"})
    page.refresh()
    until(lambda: states(page) == {"Other": "Ready", "My tune": "Ready"})
    page.find_element("css selector", ".song:last-child > .actions > :last-child").click()
    until(lambda: states(page) == {"Other": "Ready"})
    app.ask("DELETE", f"/jobs/{other}")
    page.refresh()
    until(lambda: page.execute_script("return localStorage.getItem('unetsep-jobs')") == "[]")
    assert states(page) == {}
    assert message(page) == "1 song was removed, or the app was restarted."


def test_a_restart_with_other_models_shows_these_and_offers_to_try_again(
    page: Any, songs: list[Path]
) -> None:
    names = "return [...document.querySelectorAll('#quality option')].map(({ text }) => text)"
    present = page.execute_script(names)
    page.execute_script(
        """
        const { choices } = unetsepApp;
        choices.models = [{ ...choices.models[0], name: "old" }];
        choices.qualities = [{ ...choices.qualities[0], title: "Old", model: "old" }];
        unetsepApp.fill("quality", choices.qualities);
        """
    )
    content = base64.b64encode(songs[0].read_bytes()).decode()
    page.execute_script(DROP, json.dumps([["One.flac", content], ["Two.flac", content]]))
    until(lambda: states(page) == {"One.flac": RESTARTED, "Two.flac": RESTARTED})
    assert page.execute_script(names) == present
    assert all("422" in line for line in complaints(page))  # what Chromium says of the answers
    for button in page.find_elements("css selector", ".song .first"):
        button.click()
    until(lambda: states(page) == {"One": "Ready", "Two": "Ready"})


def test_a_song_that_another_tab_removes_is_no_longer_ready_here(
    page: Any, app: LocalApp, songs: list[Path]
) -> None:
    drop(page, songs[0])
    until(lambda: states(page) == {"My tune": "Ready"})
    here = page.current_window_handle
    page.switch_to.new_window("tab")
    try:
        page.get(f"http://127.0.0.1:{app.port}/")
        until(lambda: states(page) == {"My tune": "Ready"})
        page.find_element("css selector", ".song > .actions > :last-child").click()
        until(lambda: states(page) == {})
    finally:
        page.close()
        page.switch_to.window(here)
    until(lambda: states(page) == {"My tune": GONE})


def test_a_song_that_is_lost_during_a_poll_disturbs_no_message(page: Any) -> None:
    """Another tab has removed it: both a poll and a check ask for it at once."""
    page.execute_script(
        """
        const row = unetsepApp.addRow("Song");
        row.job = { id: "0".repeat(32) };
        row.state = "queued";
        unetsepApp.poll();
        const { jobs } = unetsepApp;
        unetsepApp.jobs = async (ids) => {
          unetsepApp.jobs = jobs;
          await unetsepApp.check(row);
          return [];
        };
        """
    )
    until(lambda: states(page) == {"Song": GONE})
    until(lambda: page.execute_script("return unetsepApp.polling === null"))
    assert message(page) == f"Song: {GONE}"


def test_a_song_that_another_tab_removes_while_this_one_stores_its_own_is_checked(
    page: Any, app: LocalApp, songs: list[Path]
) -> None:
    drop(page, songs[0])
    until(lambda: states(page) == {"My tune": "Ready"})
    (job,) = app.queue.jobs
    app.ask("DELETE", f"/jobs/{job}")
    page.execute_script(
        """
        const key = "unetsep-jobs";
        localStorage.setItem(key, "[]");
        dispatchEvent(new StorageEvent("storage", { key, newValue: "[]" }));
        unetsepApp.save();
        """
    )
    until(lambda: states(page) == {"My tune": GONE})
    assert page.execute_script("return localStorage.getItem('unetsep-jobs')") == "[]"


def test_a_song_that_is_lost_while_it_is_heard_has_the_focus_afterwards(
    page: Any, app: LocalApp, songs: list[Path]
) -> None:
    drop(page, songs[0])
    until(lambda: states(page) == {"My tune": "Ready"})
    page.find_element("css selector", ".song .first").click()
    until(lambda: page.execute_script("return Boolean(frames[0].unetsepPlayer?.engine)"))
    (job,) = app.queue.jobs
    app.ask("DELETE", f"/jobs/{job}")
    page.execute_script("unetsepApp.check(unetsepApp.rows[0])")
    until(lambda: states(page) == {"My tune": GONE})
    page.find_element("id", "close").click()
    until(lambda: focus_name(page) == "Remove: My tune")
    until(lambda: page.execute_script("return frames[0].location.href") == "about:blank")


@pytest.mark.parametrize("button", ["Listen", "Download all", "Vocals"])
def test_a_removed_song_is_reported_when_it_is_played_or_downloaded(
    page: Any, app: LocalApp, songs: list[Path], button: str
) -> None:
    drop(page, songs[0])
    until(lambda: states(page) == {"My tune": "Ready"})
    (job,) = app.queue.jobs
    app.ask("DELETE", f"/jobs/{job}")
    page.find_element("xpath", f"//*[text()='{button}']").click()
    until(lambda: states(page) == {"My tune": GONE})
    assert not page.find_element("id", "player").is_displayed()
    assert focus_name(page) == "Remove: My tune"


def message(driver: Any) -> str:
    return str(driver.find_element("id", "message").text)


def test_songs_reappear_and_the_error_disappears_when_the_app_answers_again(
    page: Any, app: LocalApp, songs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise OSError

    drop(page, songs[1])
    until(lambda: "%" in states(page).get("A _b_long one", ""))
    with monkeypatch.context() as patch:
        patch.setattr(app.queue, "get", fail)
        until(lambda: message(page) == MISTAKE)
    until(lambda: not message(page))
    with monkeypatch.context() as patch:
        patch.setattr(app.queue, "get", fail)
        page.refresh()
        until(lambda: message(page) == MISTAKE)
        assert states(page) == {}
        drop(page, songs[0])  # one that is sent meanwhile is listed once
        until(lambda: "My tune" in states(page))
    until(lambda: states(page).keys() == {"My tune", "A _b_long one"})
    assert len(page.find_elements("css selector", ".song")) == 2
    until(lambda: not message(page))
    page.find_element("css selector", "[aria-label='Cancel: A _b_long one']").click()
    until(lambda: states(page) == {"My tune": "Ready"})
    heard = complaints(page)
    assert heard
    assert [text for text in heard if "status of 500" not in text] == []


@contextmanager
def offline(driver: Any) -> Iterator[None]:
    """A browser that reaches no server."""
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", network | {"offline": True})
    try:
        yield
    finally:
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", network | {"offline": False})
        assert [text for text in complaints(driver) if "ERR_INTERNET_DISC" not in text] == []


def test_the_page_starts_once_the_app_answers(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError

    with monkeypatch.context() as patch:
        patch.setattr("unetsep.app.handlers.qualities", fail)
        page.refresh()
        until(lambda: message(page) == MISTAKE)
    until(lambda: page.execute_script("return unetsepApp.choices"))
    until(lambda: not message(page))
    assert page.find_element("id", "quality").text
    heard = complaints(page)
    assert heard
    assert [text for text in heard if "status of 500" not in text] == []


def test_a_song_that_could_not_be_removed_reappears(
    page: Any, app: LocalApp, songs: list[Path]
) -> None:
    drop(page, songs[0])
    until(lambda: states(page) == {"My tune": "Ready"})
    with offline(page):
        page.find_element("xpath", "//button[text()='Remove']").click()
        until(lambda: message(page) == DEAF)
        assert states(page) == {}
        # It would reappear after a reload, too.
        (job,) = app.queue.jobs
        stored = "return localStorage.getItem('unetsep-jobs')"
        until(lambda: page.execute_script(stored) == json.dumps([job]))
    until(lambda: states(page) == {"My tune": "Ready"})
    until(lambda: not message(page))
    page.find_element("xpath", "//button[text()='Remove']").click()
    until(lambda: not app.queue.jobs)


def test_a_broken_upload_is_sent_again_only_once_its_first_try_is_removed(
    page: Any, app: LocalApp, songs: list[Path]
) -> None:
    page.execute_script(BREAK)
    drop(page, songs[0])
    until(lambda: states(page) == {"My tune.flac": "The upload was interrupted."})
    (lost,) = app.queue.jobs
    again = "[aria-label='Try again: My tune.flac']"
    with offline(page):
        page.find_element("css selector", again).click()
        until(lambda: states(page) == {"My tune.flac": DEAF})
        assert focus_name(page) == "Try again: My tune.flac"
    page.find_element("css selector", again).click()
    until(lambda: states(page) == {"My tune": "Ready"})
    assert len(app.queue.jobs) == 1
    assert lost not in app.queue.jobs


def test_trouble_is_announced_once(page: Any, app: LocalApp, songs: list[Path]) -> None:
    drop(page, songs[1])
    until(lambda: "%" in states(page).get("A _b_long one", ""))
    page.execute_script(ANNOUNCED)
    with offline(page):
        until(lambda: message(page) == DEAF)
        polls = "return performance.getEntriesByType('resource').length"
        count = page.execute_script(polls)
        until(lambda: page.execute_script(polls) > count + 2)
    until(lambda: not message(page))
    assert announcements(page) == [DEAF, ""]


def test_sizes_below_a_megabyte_are_shown(page: Any) -> None:
    sizes = (300_000, 1_234_500, 500_000_000)
    words = [page.execute_script("return sizeWords(arguments[0])", size) for size in sizes]
    assert words == ["0.3 MB", "1.2345 MB", "500 MB"]


def test_a_player_that_cannot_be_loaded_can_be_closed(
    page: Any, app: LocalApp, songs: list[Path]
) -> None:
    drop(page, songs[0])
    until(lambda: states(page) == {"My tune": "Ready"})
    page.execute_script("unetsepApp.check = () => true")  # the connection is lost just after
    with offline(page):
        page.find_element("css selector", ".song .first").click()
        document = "return document.getElementById('frame').contentDocument"
        until(lambda: page.execute_script(document) is None)  # the browser shows an error
        page.find_element("id", "close").click()
        until(lambda: page.execute_script(f"{document}?.URL") == "about:blank")
    assert focus_name(page) == "Listen: My tune"


def test_many_jobs_are_requested_in_batches(page: Any) -> None:
    ids = [f"{number:032x}" for number in range(250)]
    driver_ids = json.dumps(ids)
    requests(page)
    assert page.execute_script(f"return unetsepApp.jobs({driver_ids})") == []
    asked = [address for address in requests(page) if "/jobs?" in address]
    assert sum(address.count("id=") for address in asked) == 250
    assert max(map(len, asked)) < 8000
    page.get(page.current_url)


def test_a_dropped_folder_is_refused_unlike_a_song(
    page: Any, app: LocalApp, songs: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "Album.flac"  # its size, of 4096 bytes or so, is no file's
    folder.mkdir()
    box = page.find_element("id", "drop").rect
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(folder), str(songs[0])], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "data": data, **place}
        page.execute_cdp_cmd("Input.dispatchDragEvent", event)
    until(lambda: states(page).get("My tune") == "Ready")
    assert states(page)["Album.flac"] == "A folder: drop the songs that are in it."


def test_cancelling_a_song_before_the_app_answers_removes_its_job(
    page: Any, app: LocalApp, songs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    to_json = Handlers._to_json
    cancelled = threading.Event()

    def slow(handlers: Handlers, job: SeparationJob) -> dict[str, Any]:
        cancelled.wait(20)
        return to_json(handlers, job)

    with monkeypatch.context() as patch:
        patch.setattr(Handlers, "_to_json", slow)
        drop(page, songs[1])
        # The app has all of it, has perhaps begun, and names no job yet.
        until(lambda: app.queue.jobs)
        page.find_element("css selector", ".song button").click()
        until(lambda: not states(page))
        cancelled.set()
        until(lambda: not app.queue.jobs)
    assert message(page) == "A <b>long one.flac was cancelled."
    drop(page, songs[0])
    until(lambda: states(page) == {"My tune": "Ready"})


def test_a_broken_upload_can_be_tried_again(page: Any, app: LocalApp, songs: list[Path]) -> None:
    page.execute_script(BREAK)
    drop(page, songs[0])
    until(lambda: states(page) == {"My tune.flac": "The upload was interrupted."})
    (lost,) = app.queue.jobs  # the app had all of it, and only its answer was lost
    page.find_element("css selector", "[aria-label='Try again: My tune.flac']").click()
    assert focus_name(page) == "Cancel: My tune.flac"
    until(lambda: states(page) == {"My tune": "Ready"})
    assert len(app.queue.jobs) == 1
    assert lost not in app.queue.jobs
    check_look(page)
    empty = songs[0].with_name("empty.wav")
    empty.touch()
    drop(page, empty)
    until(lambda: states(page).get("empty.wav") == "The file is empty.")
    empty.unlink()
    assert not page.find_elements("xpath", "//button[text()='Try again']")


def test_a_song_that_is_removed_elsewhere_is_shown_as_gone(
    page: Any, app: LocalApp, songs: list[Path]
) -> None:
    drop(page, songs[1])
    until(lambda: "%" in states(page).get("A _b_long one", ""))
    (job,) = app.queue.jobs
    app.ask("DELETE", f"/jobs/{job}")
    until(lambda: states(page) == {"A _b_long one": GONE})
    page.find_element("xpath", "//button[text()='Remove']").click()
    until(lambda: not states(page))


def test_the_browser_goes_back_from_the_player_to_the_songs(
    page: Any, app: LocalApp, songs: list[Path]
) -> None:
    def is_open() -> bool:
        return bool(page.find_element("id", "player").is_displayed())

    before = page.current_url
    drop(page, songs[0])
    until(lambda: states(page) == {"My tune": "Ready"})
    content = base64.b64encode(songs[0].read_bytes()).decode()
    page.execute_script(DROP, json.dumps([["Other.flac", content]]))
    until(lambda: states(page) == {"My tune": "Ready", "Other": "Ready"})
    steps = page.execute_script("return history.length")
    engine = "const { engine } = frames[0].unetsepPlayer;"
    play, fail = "engine.play()", "engine.fail(new Error('No sound starts'))"
    # The mix of the last song stays as it was left, unless its player has failed.
    for song, close, left, action in (
        (1, "back", 0, play),
        (1, "close", 3, play),
        (2, "escape", 0, play),
        (2, "back", 3, fail),
        (1, "back", 0, play),
    ):
        page.find_element("css selector", f".song:nth-child({song}) .first").click()
        until(is_open)
        until(lambda: page.execute_script("return Boolean(frames[0].unetsepPlayer?.engine)"))
        until(lambda: focus_id(page) == "frame")
        assert page.execute_script(engine + "return engine.semitones") == left
        page.execute_script(f"{engine} engine.semitones = 3; {action}")
        if close == "back":
            page.back()
        elif close == "close":
            page.find_element("id", "close").click()
        else:
            press(page, "\ue00c")
        until(lambda: not is_open())
        until(lambda: page.execute_script("return history.state") is None)
        assert page.current_url == before
        if action == fail:
            until(lambda: page.execute_script("return frames[0].location.href") == "about:blank")
        else:
            assert page.execute_script(engine + "return engine.playing") is False
    assert page.execute_script("return history.length") <= steps + 1
    (kept, _) = app.queue.jobs
    page.find_element("css selector", ".song > .actions > :last-child").click()
    until(lambda: kept not in app.queue.jobs)
    assert page.execute_script("return frames[0].location.href") == "about:blank"


def test_an_error_that_begins_with_its_song_names_it_once_and_as_it_is(page: Any) -> None:
    page.execute_script(ANNOUNCED)
    for name, error in (("a b.json", "a b.json is not audio"), ("song", "song.mp3 is damaged")):
        job = {"name": name, "state": "failed", "error": error}
        page.execute_script("unetsepApp.addRow('Song').show(arguments[0])", job)
        assert states(page)[name] == announcements(page)[-1] == f"{error}."


def test_the_player_stays_closed_after_reloads_and_a_step_forward(
    page: Any, app: LocalApp, songs: list[Path]
) -> None:
    drop(page, songs[0])
    until(lambda: states(page) == {"My tune": "Ready"})
    steps = page.execute_script("return history.length")
    for leave in (page.refresh, page.refresh, page.back):
        page.find_element("css selector", ".song .first").click()
        until(lambda: page.execute_script("return Boolean(frames[0].unetsepPlayer?.engine)"))
        leave()
        until(lambda: page.execute_script("return history.state") is None)
        until(lambda: states(page) == {"My tune": "Ready"})
        assert page.execute_script("return history.length") <= steps + 1
        if leave == page.refresh:  # Chromium loads the player for it
            until(lambda: page.execute_script("return frames[0].location.href") == "about:blank")
    page.execute_script("addEventListener('popstate', () => (window.stepped = true))")
    page.forward()
    until(lambda: page.execute_script("return window.stepped && history.state === null"))
    assert page.execute_script("return frames[0].unetsepPlayer.engine.playing") is False
    assert not page.find_element("id", "player").is_displayed()


def test_the_page_lets_its_player_save_a_mix(page: Any) -> None:
    """Firefox asks the page whether its frame may show what the frame saves."""
    page.execute_async_script(
        """
        const [done] = arguments;
        const frame = document.createElement("iframe");
        frame.onload = () => done(frame.remove()); // the fixture sees what is refused
        frame.src = URL.createObjectURL(new Blob(["mix"], { type: "text/plain" }));
        document.body.append(frame);
        """
    )


def test_long_and_right_to_left_names_do_not_disturb_messages(page: Any) -> None:
    """A name that turns the direction would show the words behind it in reverse."""
    for name in ("x" * 180 + ".mp3", "evil\u202egpj.mp3", "שרה 1.mp3"):
        page.execute_script(DROP, json.dumps([[name, ""]]))
        for width in (1280, 390, 320):
            with screen(page, width, 844):
                assert page.execute_script("return document.documentElement.scrollWidth") == width
        left, right = page.execute_script(
            """
            const text = document.getElementById("message").firstChild;
            const range = document.createRange();
            return [/(?<=: )The/, /empty/].map((word) => {
              range.setStart(text, text.data.search(word));
              range.setEnd(text, range.startOffset + 1);
              return range.getBoundingClientRect().left;
            });
            """
        )
        assert left < right, name
    page.execute_script(DROP, json.dumps([["שרה (live)!", ""]]))
    assert page.execute_script(FROM_RIGHT, ".song:last-child h3") == [True]
    page.execute_script(DROP, json.dumps([["שרה 1", ""], ["plain", ""], ["שרה 2", ""]]))
    isolated = "\u2068שרה 1\u2069, plain, \u2068שרה 2\u2069"
    assert page.execute_script("return document.getElementById('message').textContent") == (
        f"0 songs were added. Not added: {isolated}."
    )


def test_long_names_in_errors_and_warnings_widen_nothing(page: Any) -> None:
    page.execute_script(
        """
        const long = "x".repeat(180);
        unetsepApp.addRow("One").fail(`${long} is not audio.`);
        unetsepApp.addRow("Two").finish({ warnings: [`${long} is damaged`], stems: {}, zip: "/" });
        """
    )
    for width in (1280, 390, 320):
        with screen(page, width, 844):
            assert page.execute_script("return document.documentElement.scrollWidth") == width


def test_songs_that_end_at_once_are_all_announced(
    page: Any, app: LocalApp, songs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    page.execute_script(ANNOUNCED)
    to_json = Handlers._to_json

    def late(handlers: Handlers, job: SeparationJob) -> dict[str, Any]:
        """Says of no job that it is done before all are."""
        over = len(app.queue.jobs) == 2 and {j.state for j in app.queue.jobs.values()} == {"done"}
        return to_json(handlers, job) | ({} if over else {"state": "queued", "before": 0})

    content = base64.b64encode(songs[0].read_bytes()).decode()
    with monkeypatch.context() as patch:
        patch.setattr(Handlers, "_to_json", late)
        page.execute_script(DROP, json.dumps([["One.flac", content], ["Two.flac", content]]))
        until(lambda: states(page) == {"One": "Ready", "Two": "Ready"})
    assert announcements(page)[-1] == "One is ready. Two is ready."


def test_announcing_many_songs_keeps_the_list_in_sight(page: Any) -> None:
    """As when the app was started again."""
    with screen(page, 390, 844):
        top = "return document.getElementById('songs').getBoundingClientRect().top"
        page.execute_script("unetsepApp.addRow('First')")
        before = page.execute_script(top)
        page.execute_script("unetsepApp.announce('Ready')")
        assert page.execute_script(top) == before
        page.execute_script(
            """
            for (let i = 0; i < 20; i++) {
              const row = unetsepApp.addRow(`Song ${i}`);
              row.job = { id: "0".repeat(30) + (10 + i) };
              row.state = "queued";
            }
            unetsepApp.poll();
            """
        )
        until(lambda: message(page) == "20 songs failed: the list says why.")
        assert states(page)["Song 19"] == GONE
        page.execute_script(
            DROP, json.dumps([["x" * 250 + str(number), ""] for number in range(3)])
        )
        box = "return document.getElementById('message').getBoundingClientRect().height"
        assert page.execute_script(box) < 844 / 2
        page.execute_script(
            """
            const rows = [...Array(5)].map((_, i) => ({ state: i ? "done" : "failed" }));
            unetsepApp.announceOutcomes(rows);
            """
        )
        assert message(page) == "4 songs are ready. 1 song failed: the list says why."
        page.execute_script("for (const row of [...unetsepApp.rows]) row.remove()")
        until(lambda: message(page).endswith("was removed."))
        page.refresh()


def test_the_page_follows_font_size_and_contrast_of_the_browser(page: Any) -> None:
    size = "return parseFloat(getComputedStyle(document.documentElement).fontSize)"
    border = "return getComputedStyle(document.getElementById('quality')).borderTopColor"
    assert page.execute_script(size) == 16
    before = page.execute_script(border)
    contrast = {"features": [{"name": "prefers-contrast", "value": "more"}]}
    page.execute_cdp_cmd("Page.setFontSizes", {"fontSizes": {"standard": 32}})
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", contrast)
    try:
        page.refresh()
        assert page.execute_script(size) == 32
        ink = page.execute_script("return getComputedStyle(document.body).color")
        assert page.execute_script(border) == ink != before
        for width in (1280, 390):
            with screen(page, width, 844):
                until(lambda: page.execute_script("return unetsepApp.choices"))
                assert page.execute_script("return document.documentElement.scrollWidth") == width
    finally:
        page.execute_cdp_cmd("Page.setFontSizes", {"fontSizes": {"standard": 16}})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_examples_of_the_api_need_no_scrolling_to_the_side(page: Any, app: LocalApp) -> None:
    with screen(page, 320, 640):
        page.get(f"http://127.0.0.1:{app.port}/api")
        wide = (
            "return [...document.querySelectorAll('pre')].map((e) => e.scrollWidth > e.clientWidth)"
        )
        assert set(page.execute_script(wide)) == {False}
        assert page.execute_script("return document.documentElement.scrollWidth") == 320
    page.get(f"http://127.0.0.1:{app.port}/")  # the fixture counts what is loaded


@pytest.mark.parametrize("size", [(1280, 700), (390, 844), (320, 256)])
def test_a_message_stays_visible_in_a_long_list_and_covers_no_focus(
    page: Any, size: tuple[int, int]
) -> None:
    with screen(page, *size):
        page.execute_script(
            """
            for (let i = 0; i < 300; i++) unetsepApp.addRow(`Song ${i}`);
            unetsepApp.announce("The app does not answer. Is it still running?");
            scrollTo(0, 1e6);
            """
        )
        box = "const {top, bottom} = document.getElementById('message').getBoundingClientRect();"
        top, bottom = page.execute_script(box + "return [top, bottom]")
        assert 0 <= top < bottom < size[1] / 2
        covered = page.execute_script(
            box
            + """
            const controls = [...document.querySelectorAll(".song button")].reverse().slice(0, 20);
            return controls.filter((control) => {
              control.focus();
              return control.getBoundingClientRect().top < bottom;
            }).length;
            """
        )
        assert covered == 0
        page.execute_script(DROP, json.dumps([[f"{number}.mp3", ""] for number in range(1, 31)]))
        assert message(page) == "0 songs were added. Not added: 1.mp3, 2.mp3, 3.mp3 and 27 more."
        page.refresh()
