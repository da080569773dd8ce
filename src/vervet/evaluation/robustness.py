"""How a model bears what microphones, rooms, telephones and codecs do to a recording."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from vervet.audio import Part, read, resample
from vervet.augment import shift, stretch
from vervet.corpora import title_of
from vervet.evaluation.leakage import named, place, read_split
from vervet.evaluation.metrics import scores
from vervet.evaluation.run import read_tested
from vervet.files import write_json
from vervet.predict import Predictor, load

RATE = 16_000  # Hz, of the recordings that are degraded
TELEPHONE_RATE, TELEPHONE_HZ = 8_000, (300, 3_400)
BATCH = 8

GROUPS = ("sex", "corpus")  # whose recordings are also scored apart, untouched

Degrade = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # (samples,) float32 at RATE -> the same
Predict = Callable[[Sequence[np.ndarray]], np.ndarray]  # waveforms at RATE -> probabilities (n, classes)


@dataclass(frozen=True)
class Clip:
    """A test recording and what is known of it."""

    sound: Path | Part
    emotion: str
    sex: str = ""
    corpus: str = ""


@dataclass(frozen=True)
class Condition:
    """One thing that happens to a recording, at one strength."""

    kind: str
    level: str
    degrade: Degrade


def add_noise_at(waveform: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Add white noise `snr_db` below the mean power of (samples,) float32."""
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
    sigma = np.sqrt(power * 10 ** (-snr_db / 10))
    return waveform + rng.normal(0, sigma, len(waveform)).astype(np.float32)


def telephone(waveform: np.ndarray, codec: str = "") -> np.ndarray:
    """What a telephone leaves of (samples,) float32: 300 to 3400 Hz at 8 kHz, perhaps what a codec makes of that."""
    narrow = resample(waveform, RATE, TELEPHONE_RATE)
    spectrum = np.fft.rfft(narrow)
    hz = np.fft.rfftfreq(len(narrow), 1 / TELEPHONE_RATE)
    spectrum[(hz < TELEPHONE_HZ[0]) | (hz > TELEPHONE_HZ[1])] = 0
    passed = np.fft.irfft(spectrum, len(narrow)).astype(np.float32)
    passed = _decoded(passed, TELEPHONE_RATE, format="WAV", subtype=codec) if codec else passed
    return resample(passed, TELEPHONE_RATE, RATE)


def recode(waveform: np.ndarray, format: str, subtype: str, compression: float) -> np.ndarray:
    """Encode (samples,) float32 with a lossy codec and decode it again; `compression` in [0, 1], 1 is smallest."""
    extra = {"bitrate_mode": "CONSTANT"} if format == "MP3" else {}
    return _decoded(waveform, RATE, format=format, subtype=subtype, compression_level=compression, **extra)


def _decoded(waveform: np.ndarray, sampling_rate: int, **encoding: Any) -> np.ndarray:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, sampling_rate, **encoding)
    buffer.seek(0)
    decoded, _ = soundfile.read(buffer, dtype="float32")
    return np.ascontiguousarray(decoded[: len(waveform)])


def amplify(waveform: np.ndarray, gain_db: float) -> np.ndarray:
    """Change the level of (samples,) float32 and cut what exceeds full scale."""
    return np.clip(waveform * np.float32(10 ** (gain_db / 20)), -1, 1)


def conditions() -> list[Condition]:
    """Every condition, the untouched recordings first."""

    def condition(kind: str, level: str, degrade: Callable[[np.ndarray], np.ndarray]) -> Condition:
        return Condition(kind, level, lambda waveform, rng: degrade(waveform))

    return [
        condition("original", "-", lambda waveform: waveform),
        *(condition("speed", f"x{s}", partial(stretch, speed=s)) for s in (0.8, 0.9, 1.1, 1.25)),
        *(Condition("noise", f"{snr} dB SNR", partial(_noise, snr_db=snr)) for snr in (30, 20, 10, 5, 0)),
        *(condition("shift", f"{s} s", partial(shift, shift_s=s, sampling_rate=RATE)) for s in (0.5, 1.0, 1.5, 2.0)),
        condition("telephone", "300-3400 Hz", telephone),
        condition("telephone", "G.711 u-law", partial(telephone, codec="ULAW")),
        condition("telephone", "GSM 6.10", partial(telephone, codec="GSM610")),
        condition("MP3", "8 kbit/s", partial(recode, format="MP3", subtype="MPEG_LAYER_III", compression=0.99)),
        condition("MP3", "16 kbit/s", partial(recode, format="MP3", subtype="MPEG_LAYER_III", compression=0.95)),
        condition("Opus", "10 kbit/s", partial(recode, format="OGG", subtype="OPUS", compression=0.99)),
        condition("Opus", "19 kbit/s", partial(recode, format="OGG", subtype="OPUS", compression=0.95)),
        *(condition("gain", f"{gain:+d} dB", partial(amplify, gain_db=gain)) for gain in (-20, -10, 6)),
    ]


def _noise(waveform: np.ndarray, rng: np.random.Generator, snr_db: float) -> np.ndarray:
    return add_noise_at(waveform, snr_db, rng)


def robustness(
    parts: Sequence[tuple[Predict, Sequence[Clip]]], labels: Sequence[str], seed: int = 0
) -> list[dict[str, Any]]:
    """Score a model, or the models of several folds, on test recordings under every condition.

    Parameters
    ----------
    parts : sequence of (callable, sequence of Clip)
        A fold each: its model and its recordings, from speakers and clips that its training has not seen. A model takes
        waveforms, each (samples,) float32 at 16 kHz and as long as the recording, and returns probabilities
        (n, classes); padding and cutting are its own affair. The predictions of all folds are pooled.
    labels : sequence of str
        The emotions, in the order of the probabilities.
    seed : int, optional
        Of the noise; each recording has its own, the same for every model.

    Returns
    -------
    list of dict
        kind, level, wa, uar, n: one per condition, then of the untouched recordings one per sex and, if there are
        several, per corpus (kinds "sex" and "corpus").

    Raises
    ------
    ValueError
        If there is no clip, or one cannot be read.
    """
    clips = [clip for _, fold in parts for clip in fold]
    if not clips:
        raise ValueError("robustness needs at least one test recording")
    waveforms = [resample(*read(clip.sound), RATE) for clip in clips]
    true = [clip.emotion for clip in clips]
    rows: list[dict[str, Any]] = []
    untouched: list[str] = []
    for condition in tqdm(conditions(), desc="robustness", unit="condition", disable=None):
        degraded = [
            condition.degrade(waveform, np.random.default_rng([seed, index]))
            for index, waveform in enumerate(waveforms)
        ]
        found, first = [], 0
        for predict, fold in parts:
            found += _recognise(predict, degraded[first : first + len(fold)], labels)
            first += len(fold)
        untouched = untouched or found
        rows.append(_row(condition.kind, condition.level, true, found, labels))
    for kind in GROUPS:
        members = [getattr(clip, kind) for clip in clips]
        names = sorted(set(members) - {""})
        for name in names if kind == "sex" or len(names) > 1 else ():
            chosen = [index for index, member in enumerate(members) if member == name]
            rows.append(_row(kind, name, [true[i] for i in chosen], [untouched[i] for i in chosen], labels))
    return rows


def _recognise(predict: Predict, waveforms: Sequence[np.ndarray], labels: Sequence[str]) -> list[str]:
    batches = [predict(waveforms[first : first + BATCH]) for first in range(0, len(waveforms), BATCH)]
    if not batches:
        return []
    return [labels[int(index)] for index in np.concatenate(batches).argmax(axis=1)]


def _row(kind: str, level: str, true: list[str], found: list[str], labels: Sequence[str]) -> dict[str, Any]:
    scored = scores(true, found, labels)
    return {"kind": kind, "level": level, "wa": scored.wa, "uar": scored.uar, "n": scored.n}


def measure_robustness(
    folders: Sequence[Path], root: Path | None = None, validation: bool = False, model: str | None = None
) -> tuple[list[dict[str, Any]], Path]:
    """Run the ONNX models of finished runs on their degraded test recordings.

    Parameters
    ----------
    folders : sequence of Path
        A run, or the folds of one experiment, each with a model of its own; their predictions are pooled.
    root : Path, optional
        Where the corpus lies; otherwise looked for under VERVET_CORPORA.
    validation : bool, optional
        Take the validation recordings instead: those on which settings may be chosen.
    model : str, optional
        Asked instead of the runs' own: as for `vervet.load`. It must not have heard these recordings.

    Returns
    -------
    rows : list of dict
        As `robustness` gives them.
    picture : Path
        `robustness.png`; it lies with `robustness.json` in the run folder, of several folds in the folder of the folds.
        Of validation recordings, `robustness-validation.png` and `.json`; of another model, its name is added.

    Raises
    ------
    ValueError
        If a run is not finished or has no such side, the runs are not folds of one experiment, a test recording is not
        found, or the other model lacks an emotion or was trained on these corpora by another split.
    """
    from vervet.evaluation.figures import robustness_figure

    tested = [read_tested(folder) for folder in folders]
    if [] in tested:
        raise ValueError(
            f"{folders[tested.index([])]}: trained on all clips, so there are no test recordings to degrade"
        )
    last = [stages[-1].record for stages in tested]
    record = last[0]
    for key in ("corpus", "protocol", "network", "recipe", "seed", "labels"):
        if any(one[key] != record[key] for one in last):
            raise ValueError(f"robustness pools the folds of one experiment; these differ in {key}")
    predictors = [load(model)] * len(folders) if model else [load(folder) for folder in folders]
    if model:
        for predictor, stages in zip(predictors, tested, strict=True):
            _check_other(predictor.card, stages[-1].record, model)
    parts = [
        (_at_rate(predictor), _clips(folder, root, record["corpus"], "validation" if validation else "test"))
        for predictor, folder in zip(predictors, folders, strict=True)
    ]
    measured = robustness(parts, predictors[0].labels)
    folds = f"fold {record['fold']}" if len(folders) == 1 else f"{len(folders)} folds"
    network = Path(model).stem if model else f"{record['network']}, {record['recipe']}"
    title = f"{title_of(record['corpus'])}, {folds}, {network}"
    out = folders[0] if len(folders) == 1 else folders[0].parent
    parts_of_name = ("robustness", *(["validation"] if validation else []), *([Path(model).stem] if model else []))
    picture = out / f"{'-'.join(parts_of_name)}.png"
    title += ", validation" if validation else ""
    write_json(picture.with_suffix(".json"), measured)
    robustness_figure(measured, title, record["protocol"]).savefig(picture, dpi=120)
    return measured, picture


def _check_other(card: dict[str, Any], record: dict[str, Any], model: str) -> None:
    """Whether a model that is not a run's own may be asked about its recordings."""
    if lacking := sorted(set(record["labels"]) - set(card["labels"])):
        raise ValueError(f"{model}: does not know {', '.join(lacking)}, which the run is tested on")
    heard = sorted({*record["corpus"].split("+")} & {*card.get("corpora", ())})
    if heard and card.get("split_hash") != record["split_hash"]:
        raise ValueError(
            f"{model}: was trained on {' and '.join(heard)} by another split, so it may have heard these recordings"
        )


def _at_rate(predictor: Predictor) -> Predict:
    """What answers recordings that were degraded at one rate, whatever the model's own."""
    return lambda waveforms: predictor.probabilities(
        [resample(wave, RATE, predictor.sampling_rate) for wave in waveforms]
    )


def _clips(folder: Path, root: Path | None, corpus: str, side: str) -> list[Clip]:
    """The recordings of one side of a run, found on disk."""
    rows = [row for row in read_split(folder / "split.csv") if row["split"] == side and row["version"] == "original"]
    if not rows:
        raise ValueError(f"{folder}: has no {side} recordings")
    sexes = {(Path(row["file"]).name, row["speaker"]): row["sex"] for row in read_tested(folder)[-1].rows}
    clips = []
    for row in rows:
        sound = place(row, root)
        if sound is None:
            raise ValueError(f"{row['file']}: not found; give the folder of {corpus} as --root")
        sex = sexes.get((Path(named(row)).name, row["speaker"]), "")
        clips.append(Clip(sound, row["emotion"], sex, row["corpus"]))
    return clips


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table for people; differences are to the untouched recordings."""
    lines = [f"{'condition':22} {'clips':>6} {'WA':>8} {'UAR':>8} {'change':>8}"]
    for row in rows:
        change = "" if row["kind"] in ("original", *GROUPS) else f"{100 * (row['uar'] - rows[0]['uar']):+8.1f}"
        name = row["kind"] if row["level"] == "-" else f"{row['kind']} {row['level']}"
        lines.append(f"{name:22} {row['n']:6d} {row['wa']:8.1%} {row['uar']:8.1%} {change}")
    return "\n".join(lines)
