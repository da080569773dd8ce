"""Files that are there whole or not at all, and plain data in them."""

import json
import os
import re
from pathlib import Path
from typing import Any

DRAFT = re.compile(r"(\.\d+)?\.partial$")  # ends the name of a file that is being written, by which process


def write_whole(path: Path, content: bytes | str) -> None:
    """Give a file this content, text in UTF-8; whoever is killed in between leaves the old file."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.partial")  # two that write at a time do not meet
    try:
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write plain data as indented JSON, whole or not at all."""
    write_whole(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read plain data from a file that was written whole.

    Raises
    ------
    ValueError
        If it is not JSON in UTF-8.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: damaged, no JSON ({error}); bring it back, or make it again") from error
