"""The canonical emotions, and every name that corpora and users give them."""

EMOTIONS = ("anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")

ALIASES = {
    "anger": ("angry", "ang", "ärger", "wut"),
    "boredom": ("bored", "bor", "langeweile"),
    "disgust": ("disgusted", "dis", "ekel"),
    "fear": ("fearful", "fea", "afraid", "anxiety", "anxious", "angst"),
    "happiness": ("happy", "hap", "joy", "joyful", "freude"),
    "neutral": ("neutrality", "neu", "calm"),
    "sadness": ("sad", "trauer"),
    "surprise": ("surprised", "sur", "pleasant_surprise", "pleasant surprise"),
}

_CANONICAL = {emotion: emotion for emotion in EMOTIONS} | {
    alias: emotion for emotion, aliases in ALIASES.items() for alias in aliases
}


def canonical(label: str) -> str:
    """Map any known name of an emotion to its canonical one.

    Parameters
    ----------
    label : str
        A canonical emotion or an alias of it; case and surrounding blanks do not matter.

    Returns
    -------
    str
        One of `EMOTIONS`.

    Raises
    ------
    ValueError
        For a name that is not known; the message lists those that are.

    Examples
    --------
    >>> canonical("Angry")
    'anger'
    """
    try:
        return _CANONICAL[label.strip().casefold()]
    except KeyError:
        known = "; ".join(f"{emotion} ({', '.join(ALIASES[emotion])})" for emotion in EMOTIONS)
        raise ValueError(f"unknown emotion {label!r}; known are {known}") from None
