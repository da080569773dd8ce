"""The cache of images, where what it holds is damaged."""

import multiprocessing

import numpy as np
import pytest

from vervet.config import Augment, FrontEnd
from vervet.corpora import load_corpus
from vervet.training import pool
from vervet.training.pool import make_pool

SMALL = FrontEnd(duration_s=1.0, n_fft=256, win_length=256, hop_length=128, n_mels=16, width=24)
AUGMENT = Augment(versions=("original",))


@pytest.fixture
def utterances(tiny_corpus):
    return load_corpus("table", tiny_corpus)[:12]


@pytest.fixture
def expected(utterances, tmp_path):
    return np.array(make_pool(utterances, SMALL, AUGMENT, tmp_path / "sound").images)


def interrupt(utterances, cache, monkeypatch):
    """Leave a cache of which eight clips are done; gives the array and the progress."""
    real, made = pool._versions, []

    def failing(path, *rest):
        made.append(path)
        if len(made) > 8:
            raise KeyboardInterrupt
        return real(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(pool, "CHUNK", 4)
        patch.setattr(pool, "_versions", failing)
        with pytest.raises(KeyboardInterrupt):
            make_pool(utterances, SMALL, AUGMENT, cache)
    [partial], [progress] = cache.glob("*.partial.npy"), cache.glob("*.progress")
    assert progress.read_text() == "8"
    return partial, progress


def counted(monkeypatch):
    """The recordings whose images are made from now on."""
    real, made = pool._versions, []
    monkeypatch.setattr(pool, "_versions", lambda path, *rest: made.append(path) or real(path, *rest))
    return made


@pytest.mark.parametrize("content", [b"", b"eight", b"\xff", b"-4", b"13"])
def test_a_damaged_progress_begins_anew(utterances, expected, tmp_path, monkeypatch, content):
    _, progress = interrupt(utterances, tmp_path / "cache", monkeypatch)
    progress.write_bytes(content)
    made = counted(monkeypatch)
    np.testing.assert_array_equal(make_pool(utterances, SMALL, AUGMENT, tmp_path / "cache").images, expected)
    assert len(made) == 12
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".npy", ".lock"}


def broken(kind, path):
    if kind == "another shape":
        np.save(path, np.zeros((12, 1, 16, 23), np.float16))
    elif kind == "another dtype":
        np.save(path, np.zeros((12, 1, 16, 24), np.float32))
    else:
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "text": b"no array", "header": whole[:60], "short": whole[:-100]}[kind])


KINDS = ["empty", "text", "header", "short", "another shape", "another dtype"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_beginning_is_not_gone_on_with(utterances, expected, tmp_path, monkeypatch, kind):
    partial, _ = interrupt(utterances, tmp_path / "cache", monkeypatch)
    broken(kind, partial)
    made = counted(monkeypatch)
    np.testing.assert_array_equal(make_pool(utterances, SMALL, AUGMENT, tmp_path / "cache").images, expected)
    assert len(made) == 12


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_cache_is_made_again(utterances, expected, tmp_path, kind):
    [path] = (tmp_path / "sound").glob("*.npy")
    broken(kind, path)
    np.testing.assert_array_equal(make_pool(utterances, SMALL, AUGMENT, tmp_path / "sound").images, expected)


def test_an_old_progress_does_not_count_what_a_new_file_does_not_hold(utterances, expected, tmp_path, monkeypatch):
    partial, progress = interrupt(utterances, tmp_path / "cache", monkeypatch)
    partial.unlink()

    def at_once(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool, "_versions", at_once)
        with pytest.raises(KeyboardInterrupt):
            make_pool(utterances, SMALL, AUGMENT, tmp_path / "cache")
    assert partial.exists()
    assert not progress.exists()
    np.testing.assert_array_equal(make_pool(utterances, SMALL, AUGMENT, tmp_path / "cache").images, expected)


def images_of(utterances, cache):
    return np.array(make_pool(utterances, SMALL, AUGMENT, cache).images)


def test_two_processes_make_a_damaged_cache_again(utterances, expected, tmp_path):
    open_before = make_pool(utterances, SMALL, AUGMENT, tmp_path / "sound")
    [path] = (tmp_path / "sound").glob("*.npy")
    path.rename(path.with_suffix(".old"))  # what is open stays whole; a new file is broken
    path.write_bytes(b"")
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        both = processes.starmap(images_of, [(utterances, tmp_path / "sound")] * 2)
    for images in (*both, open_before.images):
        np.testing.assert_array_equal(images, expected)
