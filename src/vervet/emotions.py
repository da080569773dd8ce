"""The canonical emotions, every name that corpora and users give them, and how names of their own become labels."""

import difflib
import unicodedata
from collections.abc import Collection, Iterable

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

# Near enough to the canonical emotion where a corpus has no other name for it, an emotion of its own where it has.
LOOSE = ("anxiety", "anxious", "calm", "joy", "joyful", "pleasant_surprise", "pleasant surprise")
# Columns that stand beside a label's own in predictions and answers.
RESERVED = (
    "file", "start_s", "end_s", "start", "end", "label", "confidence", "uncertain", "version", "speaker", "sex",
    "emotion", "predicted",
)  # fmt: skip
MISSPELT = 0.85  # share of letters in common from which an unknown name is taken for a misspelt one

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
        return _CANONICAL[without_blanks(label).casefold()]
    except KeyError:
        known = "; ".join(f"{emotion} ({', '.join(ALIASES[emotion])})" for emotion in EMOTIONS)
        raise ValueError(f"unknown emotion {label!r}; known are {known}") from None


def is_known(name: str) -> bool:
    """Whether a name is that of a canonical emotion, or an alias of one."""
    return without_blanks(name).casefold() in _CANONICAL


def label_of(name: str, among: Collection[str]) -> str:
    """Decide under which label a corpus's name of an emotion goes.

    Parameters
    ----------
    name : str
        As the corpus writes it; surrounding blanks do not matter.
    among : collection of str
        Every name of the corpus, this one included.

    Returns
    -------
    str
        The canonical emotion of a known name, but for one of `LOOSE` where `among` has another name of that emotion
        too: `calm` beside `neutral` stays `calm`. A name that is not known stays as it is written.

    Raises
    ------
    ValueError
        If the name is empty, looks like a known one misspelt, is written in upper case here and in lower case there,
        or is a column of predictions.

    Examples
    --------
    >>> label_of("happy", ["happy", "bored stiff"]), label_of("bored stiff", ["happy", "bored stiff"])
    ('happiness', 'bored stiff')
    """
    text = without_blanks(name)
    folded = text.casefold()
    if not text:
        raise ValueError("no emotion is named")
    if folded in _CANONICAL:
        rivals = {_CANONICAL.get(other) for other in _folded(among) - {folded}}
        return folded if folded in LOOSE and _CANONICAL[folded] in rivals else _CANONICAL[folded]
    if folded in RESERVED:
        raise ValueError(f"an emotion cannot be called {text!r}: predictions have a column of that name")
    long = [known for known in _CANONICAL if len(known) > 3]  # most words are near to one of three letters
    near = difflib.get_close_matches(folded, long, n=1, cutoff=MISSPELT)
    if near and folded.removesuffix(near[0]) != "un":  # unhappiness is no slip of the pen
        raise ValueError(
            f"unknown emotion {text!r}; did you mean {near[0]!r}? An emotion of your own needs another name"
        )
    written = sorted({without_blanks(other) for other in among if without_blanks(other).casefold() == folded})
    if len(written) > 1:
        raise ValueError(f"one emotion is written {' and '.join(map(repr, written))}; write it alike everywhere")
    return text


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Order labels, each once: the canonical emotions as in `EMOTIONS`, then all others by name."""
    place = {emotion: number for number, emotion in enumerate(EMOTIONS)}
    return tuple(sorted(set(labels), key=lambda label: (place.get(label, len(EMOTIONS)), label)))


def _folded(names: Iterable[str]) -> set[str]:
    return {without_blanks(name).casefold() for name in names}


def without_blanks(name: str) -> str:
    """A name without blanks around it, and in one form: some systems write an umlaut as two characters."""
    return unicodedata.normalize("NFC", name).strip()
