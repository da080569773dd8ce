"""Which other clips of a speaker a network is told of when it is tested."""

from collections.abc import Sequence

import numpy as np

COUNTS = (1, 3, 10, 30)  # clips of a speaker that a network is told of


def others(speakers: Sequence[str], count: int, seed: int) -> list[np.ndarray]:
    """Draw for each clip some other clips of the same speaker.

    Parameters
    ----------
    speakers : sequence of str
        Who speaks in each clip.
    count : int
        How many; all there are of a speaker with fewer.
    seed : int
        Of the draw. A larger count holds the clips of a smaller one.

    Returns
    -------
    list of numpy.ndarray
        For each clip the indices of others, int64.
    """
    rng, names = np.random.default_rng(seed), np.array(speakers)
    chosen = []
    for clip, name in enumerate(speakers):
        own = np.flatnonzero(names == name)
        chosen.append(rng.permutation(own[own != clip])[:count])
    return chosen
