"""What a terminal can show of a number and of a text, and what programs read."""

from __future__ import annotations

import io
import unicodedata
from typing import TextIO

BAR = 16  # characters, of a share of 1


def bar(share: float, width: int = BAR) -> str:
    """Draw a share as a bar of block characters, in eighths of a character.

    Parameters
    ----------
    share : float
        In [0, 1].
    width : int
        Characters of a share of 1.

    Returns
    -------
    str
        At most `width` characters.

    Examples
    --------
    >>> bar(0.5, 4)
    '██'
    """
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def printable(text: str, encoding: str | None) -> str:
    """Redraw what a terminal's encoding has no characters for.

    Parameters
    ----------
    text : str
        Any text.
    encoding : str or None
        Of the stream it is for; None is taken for UTF-8.

    Returns
    -------
    str
        The text, or if it cannot be encoded, one in which bars and marks are ASCII and other characters escaped.
    """
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.translate(str.maketrans("█▏▎▍▌▋▊▉✓✗–…", "#       +x-~"))
        return plain.encode(encoding, "backslashreplace").decode(encoding)
    return text


def one_line(text: str) -> str:
    """Escape what would break a line or command a terminal, such as a new line in the name of a file.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    str
        Without control characters.
    """
    return "".join(
        repr(character)[1:-1] if unicodedata.category(character) == "Cc" else character for character in text
    )


def for_programs(stream: TextIO) -> None:
    """Have a stream write UTF-8 from here on, whatever the terminal's encoding: JSON, and CSV as it is in files.

    Parameters
    ----------
    stream : text file
        Standard output, say. What UTF-8 cannot hold, bytes in the name of a file that are no characters, is escaped.
    """
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
