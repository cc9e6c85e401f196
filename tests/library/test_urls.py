from __future__ import annotations

import os
import pickle

from unetsep.library.urls import UrlPath, last_name, public_url


def test_urls_are_shown_without_secrets_and_as_paths_keep_their_slashes(monkeypatch):
    assert public_url("https://me:word@x.org/a%20b.wav?sig=1#2") == "https://x.org/a%20b.wav"
    assert public_url("sftp://me:word@x.org/Why? #1.wav") == "sftp://x.org/Why? #1.wav"
    link = "zip://a@b/c.wav::https://me:word@x.org/songs.zip?sig=1"
    assert public_url(link) == "zip://a@b/c.wav::https://x.org/songs.zip"
    assert last_name(link) == "c.wav"
    assert last_name(link.replace("a@b/c.wav", "")) == "songs.zip"
    for url in (r"s3://b//a/./b\c.wav", "https://x.org//a.wav", "zip://::s3://bucket/a.zip"):
        path = UrlPath(url)
        assert str(path) == str(pickle.loads(pickle.dumps(path))) == url
        with monkeypatch.context() as patch:  # what divides folders of Windows is a letter there
            patch.setattr(os, "sep", "\\")
            assert str(path) == url
    for url in ("s3://bucket/a/b.wav", "memory://a/b#?.wav", "file:///data/a.wav", "gs://b/c d"):
        assert public_url(url) == str(UrlPath(url)) == url
        assert str(UrlPath(url).parent) == url.rpartition("/")[0]
