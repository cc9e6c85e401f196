from __future__ import annotations

import os

import pytest

from unetsep.locations import without_scheme


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///C:/My%20Music/a.wav", "C:/My Music/a.wav"),
        ("file://C:/a.wav", "C:/a.wav"),
        ("file://localhost/c:/a.wav", "c:/a.wav"),
        ("file://server/share/a%23.wav", "//server/share/a#.wav"),
        ("FILE:////server/share/a.wav", "//server/share/a.wav"),
        ("file://///server/share/a.wav", "//server/share/a.wav"),
        ("file:///a.wav", "/a.wav"),
        ("https://server/a.wav", "https://server/a.wav"),
    ],
)
def test_file_urls_are_paths_of_drives_and_servers_on_windows(monkeypatch, url, path):
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        found = without_scheme(url)
    assert found == path
