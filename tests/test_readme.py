"""What README.md and docs/predicting.md tell people to type."""

import re
import shlex
from pathlib import Path

import pytest

from vervet.cli import _parser, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PREDICTING = (ROOT / "docs" / "predicting.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", README + PREDICTING, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("vervet ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_ones_that_vervet_knows(command):
    words = shlex.split(command, comments=True)[1:]
    args, extra = _parser().parse_known_args(words)
    assert not extra or (args.accepts_settings and all(re.fullmatch(r"--[\w.]+=.+", word) for word in extra))


def test_predicting_commands_run(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    ran = 0
    for command in COMMANDS:
        words = shlex.split(command, comments=True)[1:]
        if words[0] in ("predict", "describe") and all(not w.startswith("examples") or Path(w).exists() for w in words):
            assert main(words) == 0, command
            ran += 1
    assert ran >= 2
    assert capsys.readouterr().out


def test_python_blocks_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", README + PREDICTING, re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", README):
        if not target.startswith(("http://", "https://")):
            assert (ROOT / target).exists(), target
