"""Files that are there whole or not at all."""

import os
import threading

import pytest

from vervet.files import DRAFT, read_json, write_json, write_whole


def test_what_is_written_is_there_whole_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": "ä"})
    assert read_json(path) == {"b": "ä"}
    write_whole(path, "[]")
    write_whole(tmp_path / "raw", b"\xff")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.json", "raw"]


def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_whole(path, "old")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, "new")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_another_process_has_a_draft_of_its_own(tmp_path, monkeypatch):
    path, fsync, drafts = tmp_path / "a.txt", os.fsync, []

    def meanwhile(handle):
        """As if another process wrote the same file before this one has finished."""
        drafts.append(next(tmp_path.glob("*.partial")).name)
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "getpid", lambda: threading.get_native_id() + 10**6)
        write_whole(path, "theirs")
        assert path.read_text() == "theirs"

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_whole(path, "ours")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["ours"]
    assert [DRAFT.sub("", name) for name in drafts] == ["a.txt"]
