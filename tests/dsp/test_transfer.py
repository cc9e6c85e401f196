from __future__ import annotations

import collections
import contextlib
import gc
import math
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.signals import music, white_noise
from unetsep import ensemble
from unetsep.audio.writers import quantize
from unetsep.config import ModelConfig
from unetsep.dsp import transfer
from unetsep.dsp.signal_path import SongPass
from unetsep.dsp.spectrogram import hann
from unetsep.dsp.transfer import Download, Link, StemBlock, pack
from unetsep.file_options import FileOptions
from unetsep.files import separate_file
from unetsep.network.unet import UNet
from unetsep.separator import Separator

CONFIG = ModelConfig(filters=(4, 4), segment_frames=64)
RATE = CONFIG.sample_rate
CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture(autouse=True)
def alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait for the four numbers of each segment that tell whether its channels are a pair."""
    monkeypatch.setattr(ensemble, "_unlike", lambda _: False)


def make_separator() -> Separator:
    torch.manual_seed(0)
    return Separator(UNet(CONFIG).eval(), device="cpu", precision="fp32", overlap=0.125)


def make_song(separator: Separator, rate: int, device: torch.device, wiener: int = 0) -> SongPass:
    return SongPass(
        separator.config,
        separator.estimate,
        sample_rate=rate,
        channels=2,
        selection=separator.select(),
        overlap=separator.overlap,
        extend=True,
        wiener=wiener,
        device=device,
    )


@pytest.mark.parametrize("shape", [(4, 2, 20_001), (1, 1, 1), (3, 1, 7), (2, 6, 8192)])
@pytest.mark.parametrize("gain", [0.1, 0.5])
def test_packed_stems_are_what_files_hold_and_their_peak(shape, gain):
    stems = gain * white_noise(math.prod(shape), channels=1).reshape(shape)
    stems.reshape(-1)[:8] = np.float32([-1, 1, 0.5, 1.5, -0.5, -1.5, 2.5, 0])[: stems.size] / 32768
    packed = pack(torch.from_numpy(stems))
    assert packed[:2].view(torch.float32).item() == np.abs(stems).max()
    expected = np.stack([quantize(stem.T, "16") for stem in stems])
    np.testing.assert_array_equal(packed[2:].numpy().reshape(expected.shape), expected)


def test_a_block_has_integers_up_to_full_scale_and_floats_beyond():
    link, stems = Link(CPU), torch.tensor([[[0.5, -1.0, 1.0]]])
    assert StemBlock(link, stems, integers=True).integers().tolist() == [
        [[16384], [-32768], [32767]]
    ]
    assert StemBlock(link, stems).integers() is None
    loud = StemBlock(link, stems * 1.001, integers=True)
    assert loud.integers() is None
    np.testing.assert_array_equal(loud.floats(), (stems * 1.001).numpy())
    empty = StemBlock(link, stems[..., :0], integers=True)
    assert (empty.samples, empty.integers()) == (0, None)
    assert empty.floats().shape == (1, 1, 0)


def test_an_array_that_must_not_be_written_to_can_be_separated():
    block = white_noise(100)
    block.flags.writeable = False
    there = Link(CPU).upload(block)
    np.testing.assert_array_equal(there.numpy(), block)


class CountingLink(Link):
    """The link to a device without data: downloads are zero."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.uploads = self.downloads = 0

    def upload(self, block: np.ndarray) -> torch.Tensor:
        self.uploads += block.size > 0
        return super().upload(block)

    def download(self, tensor: torch.Tensor) -> Download:
        if tensor.device == CPU:
            return super().download(tensor)
        self.downloads += 1
        return Download(torch.zeros(tensor.shape, dtype=tensor.dtype))


class Crossings(TorchDispatchMode):
    """Operations with inputs on one device and outputs on another."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operation, _types, arguments=(), options=None):
        result = operation(*arguments, **(options or {}))
        tensors = tree_leaves((arguments, options, result))
        devices = {each.device for each in tensors if isinstance(each, torch.Tensor)}
        if len(devices) > 1:
            self.names.append(str(operation))
        return result


def make_meta(separator: Separator) -> tuple[Separator, CountingLink]:
    """A separator on the device meta, whose data cannot be read: waiting for it fails."""
    for network in separator._ensemble.networks:
        network.to(META)
    separator.device = META
    config = separator.config
    hann(config.n_fft, META)  # windows, which all songs share
    shape = (config.channels, config.segment_frames, config.n_fft // 2 + 1)
    separator.estimate(torch.zeros(shape, dtype=torch.complex64, device=META).mT[:, : config.bins])
    return separator, CountingLink(META)


# The filter gathers more frames than the small network's blocks have.
@pytest.mark.parametrize(
    ("model", "wiener", "integers", "count"),
    [("default", 0, True, 3), ("small", 1, True, 16), ("small", 0, False, 3)],
)
def test_a_block_is_uploaded_once_and_downloaded_once(model, wiener, integers, count):
    given = make_separator() if model == "small" else Separator(model, device="cpu")
    separator, link = make_meta(given)
    song = make_song(separator, RATE, META, wiener)
    song._link = link
    size = separator.block_samples(RATE)
    blocks = [white_noise(size, seed=seed) for seed in range(count)]
    with Crossings() as crossings:
        out = [song._push_block(block, integers=integers) for block in blocks]
        out.append(song._finish_block(integers=integers))
    assert link.uploads == len(blocks)
    assert len(crossings.names) == len(blocks)
    assert all(name.startswith("aten.to.") for name in crossings.names)
    assert link.downloads == sum(block.samples > 0 for block in out) >= 2
    assert sum(block.samples for block in out) == count * size


def test_at_another_rate_spectra_stay_on_the_device():
    separator, link = make_meta(make_separator())
    song = make_song(separator, 48_000, META)
    song._link = link
    size = separator.block_samples(48_000)
    with Crossings() as crossings:
        for seed in range(5):
            song.push(white_noise(size, seed=seed))
        song.finish()
    assert len(crossings.names) == link.uploads == 6  # one for the resampler's last samples
    # Of each segment and of each block of frames that it shares: waves, and shares above the band.
    assert link.downloads <= 4 * 6


class DeviceTypes(TorchDispatchMode):
    """Types of numbers on the device meta; downloads are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, operation, _types, arguments=(), options=None):
        options = options or {}
        if options.get("device") == CPU and getattr(arguments[0], "is_meta", False):
            return torch.zeros_like(arguments[0], device=CPU)
        result = operation(*arguments, **options)
        tensors = [each for each in tree_leaves((arguments, result)) if torch.is_tensor(each)]
        self.seen |= {each.dtype for each in tensors if each.is_meta}
        return result


@pytest.mark.parametrize("model", ["default", "fast", "spleeter-vocals"])
@pytest.mark.parametrize("channels", [2, 1])
def test_where_spectra_stay_on_the_host_no_type_that_apples_gpus_lack_leaves_it(model, channels):
    separator, _ = make_meta(Separator(model, device="cpu", precision="fp32"))
    config = separator.config
    shape = (channels, config.segment_frames, config.n_fft // 2 + 1)
    spectrum = torch.zeros(shape, dtype=torch.complex64).mT[:, : config.bins]
    with DeviceTypes() as types:
        masks = separator.estimate(spectrum)
    assert masks.device == CPU
    assert torch.float32 in types.seen
    assert not types.seen & {torch.float64, torch.complex64, torch.complex128}


class FakeCuda:
    """CUDA streams and events that only record their calls."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.current: str | None = None
        self.streams = 0
        self.by_name = {"None": FakeStream(self, "None")}  # the default stream
        self.kept: set[tuple[int, str]] = set()
        patch.setattr(torch.cuda, "Stream", self.stream)
        patch.setattr(torch.cuda, "Event", self.event)
        patch.setattr(torch.cuda, "stream", self.use)
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor.clone())
        patch.setattr(torch.Tensor, "record_stream", lambda *each: self.keep(*each))
        empty = torch.empty
        patch.setattr(torch, "empty", lambda *a, pin_memory=False, **b: empty(*a, **b))
        patch.setattr(transfer, "_idle", type(transfer._idle)(list))

    def write(self, *words: str) -> None:
        self.log.append(" ".join(words))

    def keep(self, tensor: torch.Tensor, stream: FakeStream) -> None:
        self.write("keep", stream.name)
        self.kept.add((memory(tensor), stream.name))

    def stream(self, _device: torch.device) -> FakeStream:
        self.streams += 1
        stream = FakeStream(self, ("compute", "up", "down")[(self.streams - 1) % 3])
        return self.by_name.setdefault(stream.name, stream)

    @contextlib.contextmanager
    def use(self, stream: FakeStream) -> Iterator[None]:
        before, self.current = self.current, stream.name
        yield
        self.current = before

    def event(self, *, blocking: bool) -> FakeEvent:
        assert blocking
        return FakeEvent(self)


class FakeStream:
    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self.cuda, self.name = cuda, name
        # How much of each stream's work is complete before the next work on this one.
        self.before = collections.Counter[str]()

    def wait_stream(self, other: FakeStream) -> None:
        self.cuda.write(self.name, "after", other.name)
        self.before |= other.before


class FakeEvent:
    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda

    def record(self) -> None:
        self.cuda.write("event in", str(self.cuda.current))

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        self.cuda.write("wait")


def memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


class StreamOrder(TorchDispatchMode):
    """Which stream reads and writes which memory of the device meta, and whether it may yet.

    What is in the memory nobody knows; what is brought from there is zero.
    """

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__()
        self.cuda, self.problems = cuda, list[str]()
        self.alive: list[torch.Tensor] = []  # so that no memory is reused
        # For each memory: the stream that created it, and the position of each stream when it
        # last read or wrote it.
        self.made: dict[int, str] = {}
        self.touched = collections.defaultdict[int, dict[tuple[str, bool], int]](dict)

    def __torch_dispatch__(self, operation, _types, arguments=(), options=None):
        options = options or {}
        stream = self.cuda.by_name[str(self.cuda.current)]
        stream.before[stream.name] += 1
        for spec, value in zip(operation._schema.arguments, arguments, strict=False):
            writes = spec.alias_info is not None and spec.alias_info.is_write
            for each in tree_leaves(value):
                self.touch(each, stream, operation, writes=writes)
        for each in tree_leaves(options):
            self.touch(each, stream, operation, writes=True)
        if operation is torch.ops.aten.copy_.default and not arguments[0].is_meta:
            return arguments[0].zero_()
        result = operation(*arguments, **options)
        for each in tree_leaves(result):
            if torch.is_tensor(each) and each.is_meta and memory(each) not in self.touched:
                self.alive.append(each)
                self.made[memory(each)] = stream.name
                self.touched[memory(each)][stream.name, True] = stream.before[stream.name]
        return result

    def touch(self, value, stream: FakeStream, operation, *, writes: bool) -> None:
        if not (torch.is_tensor(value) and value.is_meta and memory(value) in self.made):
            return  # or it existed before the song
        touched = self.touched[memory(value)]
        for (name, wrote), count in touched.items():
            if (wrote or writes) and stream.before[name] < count:
                self.problems.append(f"{operation} on {stream.name} does not wait for {name}")
        touched[stream.name, writes] = stream.before[stream.name]

    def shared(self) -> set[tuple[int, str]]:
        """Memory used by another stream than the one that created it, and that stream."""
        return {
            (each, name)
            for each, touched in self.touched.items()
            for name, _ in touched
            if name != self.made[each]
        }


@pytest.mark.parametrize(
    ("rate", "wiener", "integers"), [(RATE, 1, True), (RATE, 0, False), (48_000, 0, True)]
)
def test_no_stream_reads_unwritten_memory_or_writes_memory_being_read(
    monkeypatch, rate, wiener, integers
):
    separator, _ = make_meta(make_separator())
    song = make_song(separator, rate, META, wiener)
    cuda = FakeCuda(monkeypatch)
    song._link._streams = transfer.Streams(META)
    size = separator.block_samples(rate)
    with StreamOrder(cuda) as order:
        blocks = [song._push_block(white_noise(size), integers=integers) for _ in range(12)]
        blocks.append(song._finish_block(integers=integers))
    assert sum(block.samples for block in blocks) == 12 * size
    assert order.problems == []
    assert cuda.kept == order.shared() != set()
    assert set(order.made.values()) == {"compute", "up"}


def test_streams_wait_for_each_other_and_the_host_only_when_it_reads(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    link = Link(torch.device("cuda"))
    link.device = CPU
    there = link.upload(white_noise(100))
    assert cuda.log == ["compute after up", "keep compute"]
    cuda.log.clear()
    tensor = torch.as_tensor(there) * 0.01
    monkeypatch.setattr(torch.Tensor, "device", property(lambda _: torch.device("cuda")))
    coming = link.download(tensor)
    assert cuda.log == ["down after compute", "event in down", "keep down"]
    torch.testing.assert_close(coming.wait().clone(), tensor, check_device=False)
    assert cuda.log[3:] == ["wait"]
    block = StemBlock(link, tensor[None])
    floats = block.floats()
    np.testing.assert_array_equal(floats[0], tensor.numpy())
    assert not np.shares_memory(floats, block._download.wait().numpy())


def test_streams_of_finished_songs_are_reused(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    for _ in range(3):
        links = [Link(torch.device("cuda")) for _ in range(2)]
        del links
        gc.collect()
    assert cuda.streams == 6


@pytest.mark.parametrize("rate", [RATE, 48_000])
@pytest.mark.parametrize("gain", [1, 12])
def test_files_hold_the_arrays_rounded(tmp_path, rate, gain):
    separator = make_separator()
    mixture = gain * music(6, rate)
    soundfile.write(tmp_path / "song.wav", mixture.T, rate, "FLOAT")
    paths = [tmp_path / f"{stem}.wav" for stem in separator.stems]
    options = FileOptions(bit_depth="16")
    (report,) = separate_file(tmp_path / "song.wav", [separator], [paths], options)
    assert (report.gain_db < 0) == (gain > 1)
    scale = 10 ** (report.gain_db / 20)
    for path, stem in zip(paths, separator.separate(mixture, rate).values(), strict=True):
        found = soundfile.read(path, dtype="int16")[0]
        if gain == 1:
            np.testing.assert_array_equal(found, quantize(stem.T, "16"))
        else:  # the report rounds the gain
            assert np.abs(found - 32768 * scale * stem.T).max() < 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("rate", [RATE, 48_000])
@pytest.mark.parametrize("gain", [1, 12])
def test_a_gpu_gives_what_a_cpu_gives(tmp_path, rate, gain):
    mixture = gain * music(20, rate)
    soundfile.write(tmp_path / "song.wav", mixture.T, rate, "FLOAT")
    found = {}
    torch.manual_seed(0)
    network = UNet(CONFIG).eval()
    for device in ("cpu", "cuda"):
        separator = Separator(network, device=device, precision="fp32")
        paths = [tmp_path / device / f"{stem}.wav" for stem in separator.stems]
        options = FileOptions(bit_depth="16")
        separate_file(tmp_path / "song.wav", [separator], [paths], options)
        found[device] = np.stack([soundfile.read(path)[0] for path in paths])
    assert np.abs(found["cuda"] - found["cpu"]).max() < 1e-3
