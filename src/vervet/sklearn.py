"""Vervet's features as a scikit-learn transformer: recordings in, one row of features for each out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from vervet.audio import Part
from vervet.embedding import embed
from vervet.predict import load


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Turn recordings into the features that the network's last layer reads.

    Nothing is learnt from the recordings: `fit` only checks that the model is there. So no cross-validation can leak
    through it, as long as the model was not trained on the same voices.

    Parameters
    ----------
    model : str or pathlib.Path, optional
        As for `vervet.load`; the shipped default where not given.
    sampling_rate : int
        In Hz, of recordings that are given as waveforms. Files know their own.
    n_jobs : int, optional
        Recordings at a time, as for `vervet.embed`: -1 is as many as there are cores. So it is where not given, too,
        unlike elsewhere in scikit-learn.

    Attributes
    ----------
    n_features_in_ : int
        Samples of a waveform, where `fit` was given a matrix of them.
    """

    def __init__(
        self, model: str | Path | None = None, *, sampling_rate: int = 16_000, n_jobs: int | None = None
    ) -> None:
        self.model = model
        self.sampling_rate = sampling_rate
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any = None) -> Embedder:
        """Check the recordings as far as that can be done without reading them, and the model.

        Parameters
        ----------
        X : array-like
            As for `transform`.
        y : Any, optional
            Not used.

        Returns
        -------
        Embedder
            Itself.

        Raises
        ------
        ValueError
            If there is no such model, or `X` is no list of recordings.
        """
        self._recordings(X, reset=True)
        self._n_features_out = load(self.model, threads=1).features
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Give the features of recordings.

        Parameters
        ----------
        X : array-like
            Either paths, as a list, a series or a table of one column; or waveforms of one length, as a matrix
            (recordings, samples) in [-1, 1] at `sampling_rate`; or a list of pairs (waveform, sampling_rate).

        Returns
        -------
        numpy.ndarray
            (recordings, features) float32, as from `vervet.embed`.

        Raises
        ------
        ValueError
            If a recording cannot be read, or has no sound in it, which the message then names, or `n_jobs` is 0.
        """
        return embed(self._recordings(X, reset=False), self.model, jobs=self.n_jobs)

    def _recordings(self, X: Any, reset: bool) -> list[Any]:
        listed = _listed(X)
        if listed:
            return listed
        waveforms: Any = validate_data(self, X, reset=reset, dtype=None if reset else "numeric")
        return [(waveform, self.sampling_rate) for waveform in waveforms]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _listed(X: Any) -> list[Any] | None:
    """List the recordings where they are given one by one, by name or as pairs; None where they are numbers."""
    values = X.to_numpy() if hasattr(X, "to_numpy") else X
    if isinstance(values, np.ndarray):
        values = values.ravel().tolist() if values.ndim == 1 or values.shape[1:] == (1,) else []
    if not isinstance(values, list | tuple):
        return None
    kinds = str | os.PathLike | bytes | bytearray | memoryview | tuple | Part
    each = [isinstance(value, kinds) or hasattr(value, "read") for value in values]
    if any(each) and not all(each):
        row = each.index(False)
        takes = "give a path, a part, bytes, a file or a pair"
        raise ValueError(f"recording {row}, counted from 0, is {values[row]!r}: {takes}")
    return list(values) if values and all(each) else None
