from __future__ import annotations

import sys

import pytest

from unetsep.library import memory


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/meminfo")
def test_available_memory_is_known_on_linux():
    left = memory.available_memory()
    assert left is not None
    assert 1 << 20 < left < 1 << 50


@pytest.mark.parametrize(
    ("own", "groups", "left"),
    [
        ("0::/\n", {"memory.max": 900, "memory.current": 200}, 700),  # a container
        ("0::/slurm/job_1/step_0\n", {"slurm/job_1/memory.max": 900}, 800),
        ("0::/a\n", {"a/memory.max": 900, "memory.max": 700}, 600),
        ("0::/a\n", {"a/memory.max": "max", "memory.max": 50}, 0),
        ("4:cpu,memory:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": 900}, 800),
        ("4:memory:/docker/abc\n", {"memory/memory.limit_in_bytes": 900}, 800),
        ("", {"memory.max": 900}, 800),
        ("0::/a\n", {"a/memory.max": 900, "a/memory.stat": "anon 9\ninactive_file 60"}, 860),
    ],
)
def test_available_memory_is_limited_by_the_groups_of_the_process(
    monkeypatch, tmp_path, own, groups, left
):
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(own)
    used = {"memory.max": "memory.current", "memory.limit_in_bytes": "memory.usage_in_bytes"}
    for name, value in groups.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
        if path.name in used and f"{used[path.name]}" not in groups:
            path.with_name(used[path.name]).write_text("100\n")
    assert memory.available_memory() == left
