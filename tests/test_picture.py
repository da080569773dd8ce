import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from predicting import clip, run

from vervet import batch

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_picture_is_drawn(capsys, model, tmp_path):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    path = tmp_path / "new" / "run.png"
    code, out, err = run(capsys, model, EXAMPLES / "clips.csv", "--picture", path)
    assert (code, err) == (0, "")
    assert "14 right" in out
    fourteen = imread(path)
    assert fourteen.std() > 0.05
    run(capsys, model, EXAMPLES / "16a04Wb.flac", "--picture", path)
    one = imread(path)
    assert one.shape[0] < fourteen.shape[0] / 3
    assert one.shape[1] == fourteen.shape[1] / 2


def test_names_are_drawn_as_they_are_written(capsys, model, tmp_path):
    pytest.importorskip("matplotlib")
    path = clip(tmp_path / "take_$1_at_$2.wav", "fear")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    try:
        odd.write_bytes(path.read_bytes())
    except OSError:
        odd = path  # this file system takes no such names
    code, _, err = run(capsys, model, path, odd, "--picture", tmp_path / "p.png")
    assert (code, err) == (0, "")


def test_what_can_be_no_picture_is_told_before_the_work(capsys, model, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, err = run(capsys, model, clip(tmp_path / "a.wav", "fear"), "--picture", tmp_path / "p.mp3")
    assert (code, out) == (1, "")
    assert "a picture's name ends in .png" in err


def test_a_last_window_at_another_rate_is_drawn(capsys, model, tmp_path):
    pytest.importorskip("matplotlib")
    wave = np.random.default_rng(0).uniform(-0.1, 0.1, 180_809).astype(np.float32)
    soundfile.write(tmp_path / "edge.wav", wave, 44_100)
    code, _, err = run(capsys, model, tmp_path / "edge.wav", "--picture", tmp_path / "p.png")
    assert (code, err) == (0, "")


def test_a_picture_shows_the_first_windows_of_many(predictor, tmp_path):
    picture = pytest.importorskip("vervet.picture")
    clip(tmp_path / "long.wav", "fear", 30.0)
    answers = list(batch.predict_many(predictor, batch.find([tmp_path / "long.wav"]), hop_s=1))
    assert picture.draw(predictor, answers, tmp_path / "run.png") == picture.MOST_WINDOWS < len(answers[0].predictions)
    with pytest.raises(ValueError, match="nothing was predicted"):
        picture.draw(predictor, [], tmp_path / "none.png")
