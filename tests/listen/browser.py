"""A headless Chromium that opens pages from the disk, and what it heard."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--window-size=1280,900 "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--autoplay-policy=no-user-gesture-required"
)
# Records everything that is heard, with the context's own count of samples; and again as a
# stream outside the context, as a recorder of the page's sound gets it.
RECORDER = """
const [done] = arguments;
(async () => {
  const engine = unetsepPlayer.engine;
  engine.open();
  const code = `registerProcessor("tap", class extends AudioWorkletProcessor {
    process([input]) {
      // On a busy machine currentFrame stands still for some calls.
      this.at = Math.max(currentFrame, (this.at ?? -128) + 128);
      if (input.length) this.port.postMessage([this.at, input[0].slice(), input[1]?.slice()]);
      return true;
    }
  });`;
  await engine.context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(code)}`);
  const tap = new AudioWorkletNode(engine.context, "tap", { numberOfOutputs: 0 });
  engine.master.connect(tap);
  window.heard = [];
  tap.port.onmessage = ({ data }) => window.heard.push(data);
  const streamed = new MediaStreamAudioDestinationNode(engine.context);
  engine.master.connect(streamed);
  const [track] = streamed.stream.getAudioTracks();
  window.streamed = [];
  new MediaStreamTrackProcessor({ track, maxBufferSize: 2000 }).readable.pipeTo(
    new WritableStream({
      write(data) {
        const samples = new Float32Array(data.numberOfFrames);
        data.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
        window.streamed.push(samples);
        data.close();
      },
    }),
  );
  // Which deck was heard from when on: it says which sample belongs to which moment.
  window.decks = [];
  const takeOver = engine.takeOver.bind(engine);
  engine.takeOver = async (...values) => {
    const result = takeOver(...values);
    window.decks.push(engine.deck);
    return result;
  };
  done();
})();
"""

# Light and dark text on its ground, by WCAG 2: 4.5 is the least for text of this size.
CONTRASTS = """
const level = (colour) => {
  const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
  const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  const colour = getComputedStyle(element).backgroundColor;
  if (colour.startsWith("rgb(")) return colour; // not one that shows what is behind it
  return ground(element.parentElement);
};
return [...document.querySelectorAll("h1, h2, h3, p, a, label, button, select")]
  .filter((element) => element.offsetParent && element.textContent.trim())
  .map((element) => {
    const [one, two] = [level(getComputedStyle(element).color), level(ground(element))];
    return [element.textContent, (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05)];
  });
"""

# Whether a name from right to left, the only text of what a selector finds, is shown as one.
FROM_RIGHT = """
return [...document.querySelectorAll(arguments[0])].map((element) => {
  const range = document.createRange();
  const [first, last] = [0, element.firstChild.length - 1].map((at) => {
    range.setStart(element.firstChild, at);
    range.setEnd(element.firstChild, at + 1);
    return range.getBoundingClientRect().left;
  });
  return first > last;
});
"""


@contextmanager
def chromium(folder: Path, *, network: bool = True) -> Iterator[Any]:
    """A driver; skips without Chromium, unless the tests must be complete."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        if os.environ.get("CI"):
            pytest.fail("the player's tests need chromium and chromium-driver")
        pytest.skip("chromium or chromium-driver is missing")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in [*FLAGS.split(), f"--user-data-dir={folder / 'profile'}"]:
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    logs = {"browser": "ALL", **({"performance": "ALL"} if network else {})}
    options.set_capability("goog:loggingPrefs", logs)
    with webdriver.Chrome(options=options, service=Service(driver)) as chrome:
        chrome.set_script_timeout(100)
        yield chrome


def requests(driver: Any) -> list[str]:
    """Addresses of everything that was loaded since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def complaints(driver: Any) -> list[str]:
    """Whatever the console showed since the last call."""
    return [entry["message"] for entry in driver.get_log("browser")]


def press(driver: Any, *keys: str) -> None:
    """Press keys one after the other."""
    from selenium.webdriver import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


@contextmanager
def screen(driver: Any, width: int, height: int, **features: str) -> Iterator[None]:
    """A screen of that size, with features such as ``prefers_color_scheme="dark"``."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    media = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    try:
        draw(driver)
        yield
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def draw(driver: Any) -> None:
    """Wait for a frame behind the next one: what hears of a new screen has heard of it."""
    driver.execute_async_script(
        "const [done] = arguments; requestAnimationFrame(() => requestAnimationFrame(done))"
    )
