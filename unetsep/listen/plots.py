"""One picture per song: mixture, stems and their masks as spectrograms, and all levels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import UnetsepError, how_to_install
from ..storage import write_atomically
from .overview import RANGE, Overview, band_edges
from .pieces import PIECE_SECONDS, aligned, colours, common_format

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 110
TICKS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000)
FLOOR = -60.0  # dB, of the level curves
# matplotlib's own font lacks Chinese, Japanese and Korean. Fallbacks, if installed: fonts of
# Linux, macOS and Windows.
MORE_FONTS = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAGothic"),
    *("Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Yu Gothic", "Microsoft YaHei", "Microsoft JhengHei", "Malgun Gothic"),
)

Power = npt.NDArray[np.float32]


def require_matplotlib() -> None:
    """Raise unless pictures can be drawn.

    Raises
    ------
    UnetsepError
        If matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UnetsepError(
            f"pictures need matplotlib: run {how_to_install('plots')}; or leave out --plots"
        ) from error


def plot_song(stems: Mapping[str, Path], path: Path, title: str) -> None:
    """Draw a song's stems, in constant memory; their sum is the mixture.

    Parameters
    ----------
    stems
        Stem name to file.
    path
        The PNG.
    title
        Above the picture.

    Raises
    ------
    UnetsepError
        If matplotlib is missing.
    AudioError
        If a stem cannot be read.
    """
    require_matplotlib()
    import io

    from matplotlib.figure import Figure

    powers, seconds, edges = measure(stems)
    figure = Figure(figsize=(12, 2.1 * (len(stems) + 1)), layout="constrained")
    axes = figure.subplots(len(stems) + 1, 2, sharex=True, squeeze=False)
    # A name may hold bytes that are not text, and dollars, which mark formulas by default.
    title, *names = (text.encode("utf-8", "replace").decode() for text in (title, *stems))
    plain: dict[str, Any] = {"parse_math": False, "fontfamily": fonts()}
    figure.suptitle(title, fontsize=13, **plain)
    loudest = float(powers[0].max()) or 1.0
    frame = _Frame(seconds, edges)
    spectrogram = frame.spectrogram(axes[0, 0], powers[0], loudest)
    axes[0, 0].set_title("mixture", loc="left", fontsize=10)
    _levels(axes[0, 1], names, powers, seconds, plain)
    masks = ratio_masks(powers[1:])
    for row, name in enumerate(names, start=1):
        frame.spectrogram(axes[row, 0], powers[row], loudest)
        axes[row, 0].set_title(name, loc="left", fontsize=10, **plain)
        mask = frame.mesh(axes[row, 1], masks[row - 1], cmap="Greys", vmin=0, vmax=1)
        axes[row, 1].set_title(f"mask of {name}", loc="left", fontsize=10, **plain)
    for column in (0, 1):
        axes[-1, column].set_xlabel("seconds")
    label = "dB below the loudest place"
    figure.colorbar(spectrogram, ax=axes[:, 0], label=label, aspect=60, pad=0.01)
    figure.colorbar(mask, ax=axes[1:, 1], label="share of the mixture", aspect=48, pad=0.01)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # One for each letter that no font has; it is drawn as a box.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        figure.savefig(buffer, dpi=DPI, format="png", metadata={"Software": "unetsep"})
    write_atomically(path, buffer.getvalue())


def is_plot(path: Path) -> bool:
    """Whether a file is a picture that `plot_song` drew."""
    with path.open("rb") as file:
        return b"tEXtSoftware\0unetsep" in file.read(4096)


def fonts() -> list[str]:
    """Font families for names in any script, those that are installed."""
    from matplotlib import font_manager, rcParams

    # matplotlib would warn about a missing family for each text.
    installed = set(font_manager.get_font_names())
    return [*rcParams["font.family"], *(name for name in MORE_FONTS if name in installed)]


def measure(
    stems: Mapping[str, Path],
) -> tuple[list[Power], float, npt.NDArray[np.float64]]:
    """Band powers ``(rows, columns)`` of mixture and stems; seconds; the bands' edges in Hz."""
    sample_rate, channels, expected = common_format(stems.values())
    overviews = [Overview(sample_rate, expected) for _ in range(len(stems) + 1)]
    samples = 0
    for blocks in aligned(stems.values(), sample_rate, channels, PIECE_SECONDS * sample_rate):
        mixture = np.sum(blocks, axis=0)
        for overview, block in zip(overviews, [mixture, *blocks], strict=True):
            overview.push(block)
        samples += mixture.shape[-1]
    for overview in overviews:
        overview.finish()
    powers = [overview.power for overview in overviews]
    return powers, samples / sample_rate, band_edges(sample_rate)


def ratio_masks(powers: Sequence[Power]) -> list[Power]:
    """Magnitudes as shares of their sum, ``(rows, columns)`` each, 0 to 1."""
    magnitudes = np.sqrt(np.stack(powers))
    return list(magnitudes / np.maximum(magnitudes.sum(axis=0), 1e-12))


class _Frame:
    """Axes of time and logarithmic frequency."""

    def __init__(self, seconds: float, edges: npt.NDArray[np.float64]) -> None:
        self._seconds, self._edges = seconds, edges

    def mesh(self, axes: Axes, values: Power, **options: Any) -> Any:
        times = np.linspace(0, self._seconds, values.shape[1] + 1)
        mesh = axes.pcolormesh(times, self._edges, values, rasterized=True, **options)
        axes.set_yscale("log")
        ticks = [tick for tick in TICKS if tick < self._edges[-1]]
        axes.set_yticks(ticks, [f"{t // 1000} kHz" if t >= 1000 else f"{t} Hz" for t in ticks])
        axes.minorticks_off()
        axes.tick_params(labelsize=7)
        return mesh

    def spectrogram(self, axes: Axes, power: Power, loudest: float) -> Any:
        level = 10 * np.log10(np.maximum(power / loudest, 1e-20))
        return self.mesh(axes, level, cmap="magma", vmin=-RANGE, vmax=0)


def _levels(
    axes: Axes,
    names: Sequence[str],
    powers: Sequence[Power],
    seconds: float,
    plain: Mapping[str, Any],
) -> None:
    """Level curves of all stems over the mixture's; ``plain`` are properties of its texts."""
    loudest = float(powers[0].sum(axis=0).max()) or 1.0
    rgb = [(0.6, 0.6, 0.6), *(tuple(c / 255 for c in colour) for colour in colours(names))]
    for name, power, colour in zip(["mixture", *names], powers, rgb, strict=True):
        level = 10 * np.log10(np.maximum(power.sum(axis=0) / loudest, 1e-12))
        times = (np.arange(len(level)) + 0.5) * seconds / max(len(level), 1)
        axes.plot(times, level, color=colour, label=name, linewidth=1)
    axes.set_ylim(FLOOR, 3)
    axes.set_xlim(0, seconds)
    axes.set_ylabel("dB", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    axes.set_title("levels", loc="left", fontsize=10)
    legend = axes.legend(ncols=len(powers), fontsize=7, loc="lower right", framealpha=0.8)
    for text in legend.get_texts():
        text.set(**plain)
