import dataclasses
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands import call
from unetsep import Separator, WeightsError, list_models
from unetsep.dsp.segments import SegmentedMasks
from unetsep.dsp.spectrogram import stft
from unetsep.network.build import for_inference
from unetsep.network.per_stem import PerStem
from unetsep.network.presets import INSTRUMENTS, spleeter_config
from unetsep.spleeter import convert as spleeter
from unetsep.spleeter.bundle_files import BundleFiles, read_bundle
from unetsep.spleeter.convert import build, import_spleeter
from unetsep.spleeter.tensor_bundle import Entry, read_index
from unetsep.train.evaluation.estimates import model_method
from unetsep.weights.load import fetch_model, load_network
from unetsep.weights.manifest import all_models

# Narrow networks with random weights, saved and run by Spleeter 2.4 and TensorFlow 2.12;
# written by tests/parity/spleeter_parity.py, whose constants these are.
FIXTURE = Path(__file__).parents[1] / "fixtures" / "spleeter"
SIZE, STEP, SAMPLE_STEP = 64, 3, 99
DATA = "model.data-00000-of-00001"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("UNETSEP_HOME", str(folder))
    return folder


def chirps(samples):
    time = np.arange(samples) / 44100
    left = np.sin(2 * np.pi * (110 + 300 * time) * time) * np.exp(-3 * (time % 0.5))
    right = np.sin(2 * np.pi * 220 * time) * np.sin(2 * np.pi * 1.7 * time)
    return np.stack([0.5 * left + 0.1 * right, 0.4 * right], axis=1).astype(np.float32)


def small_network(stems):
    """The fixture's network on the tiny segments that Spleeter ran it on."""
    network = build(read_bundle(FIXTURE / f"{stems}stems"), SIZE)
    small = PerStem(dataclasses.replace(network.config, segment_frames=SIZE))
    small.load_state_dict(network.state_dict())
    return small.eval()


@pytest.fixture(params=[2, 4, 5])
def stems(request):
    return request.param


@pytest.mark.parametrize("folded", [False, True])
def test_each_network_of_an_instrument_equals_spleeters(stems, folded):
    expected = np.load(FIXTURE / f"{stems}stems" / "expected.npz")
    audio = chirps(int(1.4 * SIZE * 1024)).T
    spectrum = stft(torch.from_numpy(np.pad(audio, ((0, 0), (4096, 4096)))), 4096, 1024)
    magnitude = spectrum[:, :SIZE, :SIZE].abs()
    network = small_network(stems)
    run = for_inference(network) if folded else network
    with torch.inference_mode():
        outputs = (run(magnitude[None])[0] * magnitude).permute(0, 3, 2, 1).numpy()
    for index, name in enumerate(INSTRUMENTS[stems]):
        wanted = expected[f"net/{name}"][0]
        errors = [np.abs(out[::STEP, ::STEP] - wanted).max() for out in outputs]
        assert errors[index] < 1e-5 * np.abs(wanted).max()
        # All instruments have weights of their own: none may stand in for another.
        others = errors[:index] + errors[index + 1 :]
        assert min(others) > 1e-2 * np.abs(wanted).max()


def test_stems_equal_spleeters_in_its_settings(stems):
    expected = np.load(FIXTURE / f"{stems}stems" / "expected.npz")
    separator = Separator(small_network(stems), precision="fp32", overlap=0, mask_extension="zeros")
    found = separator.separate(chirps(int(1.4 * SIZE * 1024)).T, 44100)
    assert tuple(found) == INSTRUMENTS[stems]
    for name, stem in found.items():
        wanted = expected[f"stem/{name}"]
        error = np.square(stem.T[::SAMPLE_STEP] - wanted).sum() / np.square(wanted).sum()
        assert 10 * np.log10(error) < -95


def test_by_default_stems_overlap_and_add_up_to_the_mixture_in_full_band():
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 80_000)).astype(np.float32)
    separator = Separator(small_network(4), precision="fp32")
    assert separator.overlap == separator.config.overlap > 0
    stems = separator.separate(audio, 44100)
    np.testing.assert_allclose(sum(stems.values()), audio, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 65_536 - 4096, 65_537])
def test_stems_are_as_long_as_the_song_and_sum_to_it(samples):
    audio = chirps(samples).T
    stems = Separator(small_network(2), precision="fp32").separate(audio, 44100)
    np.testing.assert_allclose(sum(stems.values()), audio, atol=1e-5)


def test_the_first_segment_begins_early_and_the_last_is_padded():
    seen = []

    def estimate(magnitude):
        seen.append(magnitude.clone())
        return magnitude[None] * 0 + 1

    masks = SegmentedMasks(estimate, 2, 8, 0, 4, lead_frames=1, pad_segments=True)
    frames = torch.arange(1.0, 11).to(torch.complex64).expand(1, 3, 10)
    pairs = [*masks.push(frames[..., :3]), *masks.push(frames[..., 3:]), *masks.flush()]
    assert [block[0, 0].tolist() for block in seen] == [
        [0, 1, 2, 3, 4, 5, 6, 7],
        [8, 9, 10, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(torch.cat([p[1] for p in pairs], -1), frames)
    assert [p[0].shape[-1] for p in pairs] == [p[1].shape[-1] for p in pairs]


def test_the_published_network_has_deezers_size():
    with torch.device("meta"):
        network = PerStem(spleeter_config(4, (16, 32, 64, 128, 256, 512)))
    # 9.82 million for each instrument.
    count = sum(p.numel() for p in network.parameters())
    assert count // 4 == pytest.approx(9.82e6, rel=2e-3)


def test_the_16_khz_variant_has_the_same_weights_on_more_bins():
    low, high = (build(read_bundle(FIXTURE / "2stems"), bins) for bins in (1024, 1536))
    assert (low.config.bins, high.config.bins) == (1024, 1536)
    for name, value in low.state_dict().items():
        assert torch.equal(value, high.state_dict()[name])


def test_unwanted_stems_are_not_computed_if_masks_are_independent():
    network = small_network(4)
    free = PerStem(dataclasses.replace(network.config, mask_exponent=0.0)).eval()
    free.load_state_dict(network.state_dict())
    assert free.config.independent
    assert not network.config.independent
    calls = []
    quick = for_inference(free)
    for index, member in enumerate(quick.members):
        member.register_forward_hook(lambda *_, index=index: calls.append(index))
    magnitude = torch.rand(1, 2, SIZE, SIZE)
    with torch.inference_mode():
        one = quick(magnitude, wanted=[2])
        assert calls == [2]
        whole = quick(magnitude)
    assert torch.equal(one[:, 2], whole[:, 2])
    assert not one[:, [0, 1, 3]].any()
    audio = chirps(70_000).T
    separator = Separator(free, precision="fp32")
    bass = separator.separate(audio, 44100, stems=["bass"])["bass"]
    np.testing.assert_allclose(bass, separator.separate(audio, 44100)["bass"], atol=1e-6)


def test_an_imported_model_works_like_any_other(tmp_path, home):
    with tarfile.open(tmp_path / "2stems.tar.gz", "w:gz") as tar:
        tar.add(FIXTURE / "2stems", ".", filter=lambda m: None if "npz" in m.name else m)
    result = call("models", "import-spleeter", tmp_path / "2stems.tar.gz")
    assert result.exit_code == 0, result.output
    assert "--model spleeter-2stems" in result.output
    listed = json.loads(call("models", "--json").stdout)["models"][-1]
    assert listed["name"] == "spleeter-2stems"
    assert listed["source"]["from"] == "2stems.tar.gz"
    assert set(listed["source"]["sha256"]) == {"model.index", DATA}
    assert "imported" in call("models").stdout
    assert list_models()[-1].config["segment_frames"] == 512
    method = model_method(["spleeter-2stems"])  # as `unetsep eval` takes it
    assert method.sha256 == list_models()[-1].sha256
    colon = Separator("spleeter:2stems", precision="fp32")  # Spleeter's own name
    assert colon.name == "spleeter-2stems"
    expected = build(read_bundle(FIXTURE / "2stems")).state_dict()
    for name, value in load_network("spleeter-2stems").state_dict().items():
        assert torch.equal(value, expected[name])
    assert sorted(path.name for path in home.iterdir()) == [
        ".models.json.lock",
        "models.json",
        "spleeter-2stems.safetensors",
    ]


def test_a_name_can_be_imported_once_unless_overwritten(home):
    import_spleeter(FIXTURE / "2stems")
    with pytest.raises(WeightsError, match="already a model"):
        import_spleeter(FIXTURE / "2stems")
    import_spleeter(FIXTURE / "2stems", overwrite=True)
    import_spleeter(FIXTURE / "2stems", band="16khz")
    import_spleeter(FIXTURE / "4stems", name="mine")
    names = [e.name for e in list_models() if e.source]
    assert names == ["spleeter-2stems", "spleeter-2stems-16khz", "mine"]


def test_a_foreign_file_is_replaced_only_with_overwrite(home):
    home.mkdir()
    (home / "mine.safetensors").write_text("of somebody")
    with pytest.raises(WeightsError, match=r"a file .* that is not of any model: choose"):
        import_spleeter(FIXTURE / "2stems", name="mine")
    assert (home / "mine.safetensors").read_text() == "of somebody"
    entry = import_spleeter(FIXTURE / "2stems", name="mine", overwrite=True)
    entry.path.unlink()
    with pytest.raises(WeightsError, match="does not exist"):
        fetch_model(entry)


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a,b", "", ".x", "x.safetensors", "a" * 80, "default"]
)
def test_an_invalid_name_is_refused(name, home):
    with pytest.raises(ValueError, match="name"):
        import_spleeter(FIXTURE / "2stems", name=name)
    assert not home.exists()


def test_an_unknown_band_is_refused():
    with pytest.raises(ValueError, match="band"):
        import_spleeter(FIXTURE / "2stems", band="22khz")


@pytest.mark.parametrize("name", ["fast", "mse-long"])
def test_names_of_unetseps_models_are_refused(name):
    for overwrite in (False, True):
        with pytest.raises(WeightsError, match="is a model of unetsep: choose another"):
            import_spleeter(FIXTURE / "2stems", name=name, overwrite=overwrite)


def test_an_imported_file_that_changed_is_not_used():
    entry = import_spleeter(FIXTURE / "2stems")
    content = bytearray(entry.path.read_bytes())
    content[-1] ^= 1
    entry.path.write_bytes(content)
    with pytest.raises(WeightsError, match="import it again"):
        load_network("spleeter-2stems")


def test_a_damaged_user_manifest_is_named(home):
    home.mkdir()
    (home / "models.json").write_text("[")
    with pytest.raises(WeightsError, match=r"models\.json is damaged"):
        all_models()


def copy(tmp_path):
    return Path(shutil.copytree(FIXTURE / "2stems", tmp_path / "copy"))


@pytest.mark.parametrize("file", ["model.index", DATA])
@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_damage_gives_one_sentence_and_writes_nothing(tmp_path, home, file, harm):
    folder = copy(tmp_path)
    content = bytearray((folder / file).read_bytes())
    if harm == "truncate":
        (folder / file).write_bytes(content[: len(content) // 2])
    elif harm == "flip":
        content[len(content) // 3] ^= 1
        (folder / file).write_bytes(content)
    else:
        (folder / file).unlink()
    result = call("models", "import-spleeter", folder)
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert line.startswith("Error: ")
    assert not home.exists()


def build_with_entries(monkeypatch, change):
    """Import with other entries than the index has."""
    shards, entries = read_index((FIXTURE / "2stems" / "model.index").read_bytes())
    monkeypatch.setattr(spleeter, "read_index", lambda _: (shards, change(entries)))
    build(read_bundle(FIXTURE / "2stems"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {n: v for n, v in e.items() if not n.startswith("conv2d_3/")}, "13 conv2d"),
        (lambda e: {n: v for n, v in e.items() if n != "conv2d_3/bias"}, "incomplete"),
        (lambda e: {n: v for n, v in e.items() if n != "conv2d/kernel"}, "is missing"),
        (lambda e: {n: v for n, v in e.items() if "lstm" in n}, "0 conv2d"),
        (lambda e: e | {"conv2d_1/kernel": with_shape(e["conv2d_1/kernel"])}, "has shape"),
        (lambda e: e | {"conv2d/kernel": with_shape(e["conv2d/kernel"], (5, 5, 2, 9**9))}, "shape"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(monkeypatch, change, message):
    with pytest.raises(WeightsError, match=message):
        build_with_entries(monkeypatch, change)


def with_shape(entry: Entry, shape=(5, 5, 1, 4)):
    return dataclasses.replace(entry, shape=shape)


def test_weights_that_are_nan_are_refused(monkeypatch):
    monkeypatch.setattr(
        spleeter, "read_tensor", lambda _, entry, __: np.full(entry.shape, np.nan, np.float32)
    )
    with pytest.raises(WeightsError, match="NaN"):
        build(read_bundle(FIXTURE / "2stems"))


def test_variances_below_zero_are_refused(monkeypatch):
    """The imported model could not be loaded."""

    def read(name, entry, _):
        return np.full(entry.shape, -1.0 if "variance" in name else 1.0, np.float32)

    monkeypatch.setattr(spleeter, "read_tensor", read)
    with pytest.raises(WeightsError, match="moving_variance' of the checkpoint holds variances"):
        build(read_bundle(FIXTURE / "2stems"))


def test_a_folder_that_cannot_be_written_is_reported(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNETSEP_HOME", str(tmp_path / "file" / "in"))
    with pytest.raises(WeightsError, match="cannot be written"):
        import_spleeter(FIXTURE / "2stems")


def test_hashes_are_sha256_of_the_files():
    files = BundleFiles("m", b"", (b"abc",))
    assert files.hashes()["m.data-00000-of-00001"].startswith("ba7816bf")


def test_an_archive_is_never_extracted(tmp_path, home):
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("../evil.txt")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(WeightsError, match="not to be trusted"):
        import_spleeter(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.tar.gz"]
