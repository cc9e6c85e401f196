import gzip
import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from unetsep.errors import WeightsError
from unetsep.spleeter import bundle_files
from unetsep.spleeter.bundle_files import read_bundle

FIXTURE = Path(__file__).parents[1] / "fixtures" / "spleeter" / "2stems"
FILES = {
    name: (FIXTURE / name).read_bytes()
    for name in ("checkpoint", "model.index", "model.data-00000-of-00001")
}


def archive(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("prefix", ["", "./", "4stems/"])
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_and_a_folder_give_equal_bundles(tmp_path, prefix, mode):
    members = {prefix + name: content for name, content in FILES.items()}
    # macOS adds such companions, TensorFlow the graph.
    members |= {f"{prefix}._model.index": b"junk", f"{prefix}model.meta": b"graph"}
    assert read_bundle(archive(tmp_path / "a.tar", members, mode)) == read_bundle(FIXTURE)


def test_the_checkpoint_file_selects_one_of_several_checkpoints(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name.replace("model", "model.ckpt-2000")).write_bytes(content)
    latest = b'model_checkpoint_path: "/home/someone/run/model.ckpt-2000"\n'
    (tmp_path / "checkpoint").write_bytes(latest)
    assert read_bundle(tmp_path).prefix == "model.ckpt-2000"
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(WeightsError, match="several checkpoints"):
        read_bundle(tmp_path)


def test_companions_of_macos_in_a_folder_are_no_second_checkpoint(tmp_path):
    for name in ("model.index", "model.data-00000-of-00001"):
        (tmp_path / name).write_bytes(FILES[name])
        (tmp_path / f"._{name}").write_bytes(b"junk")
    assert read_bundle(tmp_path) == read_bundle(FIXTURE)


@pytest.mark.parametrize(
    "extra",
    [
        {"../../evil": b"x"},
        {"/etc/evil": b"x"},
        {"a\\..\\evil": b"x"},
        {"C:evil": b"x"},
        {"link": (tarfile.SYMTYPE, "/etc/passwd")},
        {"model.data-00000-of-00002": (tarfile.LNKTYPE, "model.index")},
        {"pipe": (tarfile.FIFOTYPE, "")},
        {"disk": (tarfile.BLKTYPE, "")},
    ],
)
def test_an_archive_with_unsafe_members_is_refused(tmp_path, extra):
    path = archive(tmp_path / "a.tar.gz", FILES | extra)
    with pytest.raises(WeightsError, match="not to be trusted"):
        read_bundle(path)


def test_two_files_of_one_name_are_refused(tmp_path):
    path = archive(tmp_path / "a.tar.gz", FILES | {"./model.index": b""})
    with pytest.raises(WeightsError, match="two files named"):
        read_bundle(path)


def pack(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["a.whl", "a.zip", "without a suffix"])
def test_a_checkpoint_is_found_within_any_package(tmp_path, name):
    members = {f"pkg/pretrained/2stems/{name}": content for name, content in FILES.items()}
    members |= {"pkg/__init__.py": b"code", "pkg/pretrained/2stems/._checkpoint": b"junk"}
    assert read_bundle(pack(tmp_path / name, members)) == read_bundle(FIXTURE)
    with zipfile.ZipFile(tmp_path / name) as wheel:
        wheel.extractall(tmp_path / "unpacked")
    assert read_bundle(tmp_path / "unpacked") == read_bundle(FIXTURE)


def test_the_name_of_a_folder_selects_one_of_several_checkpoints(tmp_path):
    other = Path(FIXTURE).with_name("4stems")
    members = {f"all/2stems/{name}": content for name, content in FILES.items()}
    members |= {f"all/4stems/{name}": (other / name).read_bytes() for name in FILES}
    for path in (pack(tmp_path / "a.zip", members), archive(tmp_path / "a.tar", members, "w")):
        assert read_bundle(path, "4stems") == read_bundle(other)
        with pytest.raises(WeightsError, match="several checkpoints, in all/2stems, all/4stems"):
            read_bundle(path)


def test_a_member_of_a_zip_archive_without_a_name_does_no_harm(tmp_path):
    path = pack(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr(zipfile.ZipInfo(""), b"x")
    assert read_bundle(path) == read_bundle(FIXTURE)


@pytest.mark.parametrize("name", ["../model.index", "/model.index", "C:model.index"])
def test_a_zip_archive_that_leads_out_of_its_folder_is_refused(tmp_path, name):
    with pytest.raises(WeightsError, match="leads out of it"):
        read_bundle(pack(tmp_path / "a.zip", FILES | {name: b"x"}))


def test_a_link_in_a_zip_archive_is_refused(tmp_path):
    path = pack(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(path, "a") as wheel:
        link = zipfile.ZipInfo("model.meta")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        wheel.writestr(link, "/etc/passwd")
    with pytest.raises(WeightsError, match="is a link"):
        read_bundle(path)


def test_a_damaged_zip_archive_is_refused(tmp_path):
    path = pack(tmp_path / "a.zip", FILES)
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"truncated|damaged"):
        read_bundle(path)


def in_headers(path, at, change):
    """Change bytes of each member of a zip archive, counted from its compression's field."""
    content = bytearray(path.read_bytes())
    count = 0
    for signature, field in ((b"PK\3\4", 8), (b"PK\1\2", 10)):  # each header has both
        place = content.find(signature)
        while place >= 0:
            content[place + field + at] = change
            count += 1
            place = content.find(signature, place + 4)
    assert count == 2 * len(FILES)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("at", "change", "named"),
    [
        (-2, 0x01, "encrypted"),
        (-2, 0x41, "strong encryption"),
        (0, 9, "compression"),
        (0, 99, "compression"),
    ],
    ids=["password", "strong encryption", "Deflate64", "unknown method"],
)
def test_a_zip_archive_that_python_cannot_unpack_is_refused(tmp_path, at, change, named):
    path = pack(tmp_path / "a.zip", FILES)
    in_headers(path, at, change)
    with pytest.raises(WeightsError, match=f"cannot be unpacked: .*{named}"):
        read_bundle(path)


@pytest.mark.parametrize("kind", ["a.zip", "a.tar.xz"])
def test_lzma_is_unpacked_and_its_damage_refused(tmp_path, kind):
    pytest.importorskip("lzma")
    path = tmp_path / kind
    if kind == "a.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as wheel:
            for name, content in FILES.items():
                wheel.writestr(name, content)
    else:
        archive(path, FILES, "w:xz")
    assert read_bundle(path) == read_bundle(FIXTURE)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="truncated or damaged"):
        read_bundle(path)


def test_an_undecodable_name_in_a_zip_archive_is_refused(tmp_path):
    path = pack(tmp_path / "a.zip", FILES | {"é": b""})
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xff"))
    with pytest.raises(WeightsError, match="truncated or damaged"):
        read_bundle(path)


def test_a_tar_archive_that_ends_with_a_zip_archive_is_a_tar_archive(tmp_path):
    inner = pack(tmp_path / "a.zip", {"x": b"x"}).read_bytes()
    path = archive(tmp_path / "a.tar", FILES | {"z.npz": inner}, "w")
    assert zipfile.is_zipfile(path)
    assert read_bundle(path) == read_bundle(FIXTURE)


@pytest.mark.parametrize("missing", ["model.index", "model.data-00000-of-00001"])
def test_a_missing_part_is_named(tmp_path, missing):
    members = {name: content for name, content in FILES.items() if name != missing}
    with pytest.raises(WeightsError, match=missing.split("-")[0]):
        read_bundle(archive(tmp_path / "a.tar.gz", members))


@pytest.mark.parametrize("kept", [0, 10, 1000, 20_000])
def test_a_truncated_archive_is_refused(tmp_path, kept):
    path = archive(tmp_path / "a.tar.gz", FILES)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match="truncated"):
        read_bundle(path)


# Named, and without a time: the test workers must all collect the same names.
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no archive", id="plain"),
        pytest.param(gzip.compress(b"no archive", mtime=0), id="compressed"),
    ],
)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="no tar archive"):
        read_bundle(path)


def test_a_damaged_stream_is_refused(tmp_path):
    path = archive(tmp_path / "a.tar.gz", FILES)
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"truncated|damaged"):
        read_bundle(path)


@pytest.mark.parametrize(
    "head",
    [{"GNU.sparse.map": "a,b", "GNU.sparse.major": "0"}, {"GNU.sparse.size": "many"}],
)
def test_invalid_numbers_in_headers_are_refused(tmp_path, head):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as file:
        member = tarfile.TarInfo("model/checkpoint")
        member.pax_headers = head
        file.addfile(member)
    with pytest.raises(WeightsError, match="truncated or damaged"):
        read_bundle(tmp_path / "a.tar")


def test_nothing_larger_than_a_checkpoint_is_read(tmp_path, monkeypatch):
    path = archive(tmp_path / "a.tar.gz", FILES)
    monkeypatch.setattr(bundle_files, "MAX_BYTES", 20_000)
    with pytest.raises(WeightsError, match="holds more"):
        read_bundle(path)
    with pytest.raises(WeightsError, match="holds more"):
        read_bundle(FIXTURE)
    monkeypatch.setattr(bundle_files, "MAX_INDEX_BYTES", 100)
    with pytest.raises(WeightsError, match="index is larger"):
        read_bundle(FIXTURE)


def test_missing_and_empty_sources_are_reported(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        read_bundle(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="no TensorFlow checkpoint"):
        read_bundle(tmp_path)
