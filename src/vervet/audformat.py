"""Predictions for tables of audformat, and databases of predictions in it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import audformat
import pandas as pd

from vervet.batch import Item, predict_many
from vervet.corpora.table import located
from vervet.machine import cores
from vervet.output import audformat_header, row
from vervet.predict import Predictor, load

TABLE = "predictions"  # of a database that holds nothing else


def predict(
    table: pd.Index | pd.Series | pd.DataFrame,
    model: str | Path | Predictor | None = None,
    *,
    root: str | Path = ".",
    window_s: float | None = None,
    hop_s: float | None = None,
    jobs: int | None = None,
) -> pd.DataFrame:
    """Predict the emotion in the files or segments of a table.

    Parameters
    ----------
    table : pandas.Index, Series or DataFrame
        With a filewise or segmented index of audformat, such as `db["emotion"].get()`, and perhaps a column `channel`.
    model : str, pathlib.Path or Predictor, optional
        As for `vervet.load`, or what that has returned; the shipped model where not given.
    root : str or pathlib.Path, optional
        The folder that its files are relative to, such as `db.root`; the current one where not given.
    window_s, hop_s : float, optional
        As for `Predictor.__call__`.
    jobs : int, optional
        Windows at a time; as many as there are cores where not given.

    Returns
    -------
    pandas.DataFrame
        One row per window, so several of a segment that is longer than the model's window, in the order of the table,
        with a segmented index. Columns: label, confidence in [0, 1], uncertain, the probability of each emotion in
        [0, 1], and those of the table, one that has a name of ours as `table_` and its name.

    Raises
    ------
    ValueError
        If the table has no such index, or any file or segment has no answer; the message names it. A silent part of one
        is left out, with a warning.
    """
    known = pd.DataFrame(index=table) if isinstance(table, pd.Index) else pd.DataFrame(table)
    if not (audformat.is_filewise_index(known.index) or audformat.is_segmented_index(known.index)):
        raise ValueError(
            "the table has no index of audformat, of files or segments; audformat.utils.read_csv reads one"
        )
    predictor = model if isinstance(model, Predictor) else load(model, threads=1)
    channels = known["channel"].astype(object).fillna("").map(str) if "channel" in known else [""] * len(known)
    segments = zip(audformat.utils.to_segmented_index(known.index), channels, strict=True)
    items = [
        _item(Path(root), number, file, start, end, channel)
        for number, ((file, start, end), channel) in enumerate(segments)
    ]
    rows: list[list[Any]] = []
    places: list[int] = []  # in the table, of each row
    with closing(
        predict_many(predictor, items, jobs=cores() if jobs is None else jobs, window_s=window_s, hop_s=hop_s)
    ) as answers:
        for place, answer in enumerate(answers):
            if not answer.predictions:
                raise ValueError(answer.problem)
            if answer.problem:
                warnings.warn(answer.problem, stacklevel=2)
            rows += [row(answer.item, prediction, ()) for prediction in answer.predictions]
            places += [place] * len(answer.predictions)
    return _frame(rows, known.iloc[places], predictor.labels)


def _frame(rows: list[list[Any]], known: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Put rows of answers, from `vervet.output.row`, beside what was known of them."""
    names = audformat_header(labels, [str(name) for name in known.columns])[3:]
    own = len(names) - known.shape[1]
    starts, ends = (pd.to_timedelta([values[at] for values in rows], unit="s") for at in (1, 2))
    index = audformat.segmented_index([values[0] for values in rows], starts, ends)
    found = pd.DataFrame([values[3:] for values in rows], index, names[:own])
    return pd.concat([found, known.set_axis(names[own:], axis=1).set_axis(index)], axis=1)


def _item(root: Path, number: int, file: str, start: pd.Timedelta, end: pd.Timedelta, channel: str) -> Item:
    try:
        return Item(located(root / file, {"start": str(start), "end": str(end), "channel": channel}), file)
    except ValueError as error:
        raise ValueError(f"{file}: row {number}, counted from 0: {error}") from error


def write_header(folder: Path, labels: Sequence[str], columns: Sequence[str], source: str) -> None:
    """Write the header of a database of predictions, `db.yaml`; its one table is `db.predictions.csv`.

    Parameters
    ----------
    folder : Path
        Of the database; it is made where it is not there.
    labels : sequence of str
        The model's.
    columns : sequence of str
        Of the table behind its index, as `vervet.output.to_audformat` names them.
    source : str
        What answered.
    """
    db = audformat.Database(TABLE, source, audformat.define.Usage.OTHER, description="Emotions in speech, recognised.")
    db.schemes["emotion"] = audformat.Scheme(labels=list(labels))
    db.schemes["probability"] = audformat.Scheme(audformat.define.DataType.FLOAT, minimum=0, maximum=1)
    db.schemes["uncertain"] = audformat.Scheme(audformat.define.DataType.BOOL)
    db.schemes["text"] = audformat.Scheme(audformat.define.DataType.STRING)
    schemes = {"label": "emotion", "uncertain": "uncertain"} | dict.fromkeys(("confidence", *labels), "probability")
    table = db[TABLE] = audformat.Table(audformat.segmented_index())
    for name in columns:
        table[name] = audformat.Column(scheme_id=schemes.get(name, "text"))
    db.save(str(folder), header_only=True)
