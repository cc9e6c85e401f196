"""The pictures of the player and of --plots: the song of recipes/demo.py by some models.

    python recipes/screenshots.py

writes player.png, player-phone.png and plots.png into docs/images. It takes Debian's chromium
and chromium-driver, ffmpeg, and ``pip install ".[ffmpeg,plots]" stempeg selenium``.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from demo import excerpt
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

FOLDER = Path(__file__).parent.parent / "docs/images"
# The default, the best network without a guide, and three losses.
MODELS = ("guided", "fast", "mse", "l1", "perceptual")
# Name, width, height, pixels per point, colour scheme.
SCREENS = (
    ("player.png", 1280, 800, 1.0, "light"),
    ("player-phone.png", 390, 844, 1.5, "dark"),
)
READY = "return Boolean(window.unetsepPlayer?.engine) && document.querySelectorAll('.lane').length"
# The default's stems, a loop over the middle, and the place where playing stopped.
STATE = """
return (async () => {
const { engine, song } = unetsepPlayer;
const model = song.models.findIndex(({ name }) => name === "MODEL");
await engine.change({ model });
await unetsepPlayer.setLoop({ start: 0.28 * song.length, end: 0.8 * song.length });
await engine.seek(0.51 * song.length);
})();
"""
COLOURS = 250


def separate(song: Path, folder: Path) -> None:
    """Stems of all models, their page and their pictures."""
    command = [sys.executable, "-m", "unetsep", "separate", str(song), "--player", "--plots"]
    subprocess.run([*command, "-m", ",".join(MODELS), "-o", str(folder)], check=True)


def screenshots(page: Path) -> list[tuple[str, bytes]]:
    """The page on a desktop and on a phone."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    service = Service(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as driver:
        return [(name, screenshot(driver, page, *screen)) for name, *screen in SCREENS]


def screenshot(
    driver: Any, page: Path, width: int, height: int, scale: float, scheme: str
) -> bytes:
    """The page on one screen, once all of it is drawn."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 500})
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    driver.get(page.as_uri())
    WebDriverWait(driver, 60).until(lambda chrome: chrome.execute_script(READY))
    driver.execute_script(STATE.replace("MODEL", MODELS[0]))
    driver.execute_async_script("setTimeout(arguments[0], 3000)")
    picture: bytes = driver.get_screenshot_as_png()
    return picture


def save(picture: bytes, path: Path) -> None:
    """As a PNG, screens of few colours: a third of the size, and the same to the eye."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    if path.name != "plots.png":  # whose thin lines would change colour
        image = image.quantize(COLOURS, dither=Image.Dither.NONE)
    image.save(path, optimize=True)
    print(path)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        song, _ = excerpt(Path(folder, "song"))
        stems = Path(folder, "stems")
        separate(song, stems)
        (plots,) = (stems / MODELS[0]).rglob("*-spectrograms.png")
        pictures = [("plots.png", plots.read_bytes()), *screenshots(stems / "index.html")]
    for name, picture in pictures:
        save(picture, options.output / name)


if __name__ == "__main__":
    main()
