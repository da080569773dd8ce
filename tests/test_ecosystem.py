"""What docs/ecosystem.md tells people to type."""

import re
import shlex
from pathlib import Path

import pytest

from vervet.cli import _parser

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "ecosystem.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
COMMANDS = re.findall(r"^(vervet .*)$", "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.S)), re.M)


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    for package in re.findall(r"^(?:import|from) (\w+)", block, re.M):
        pytest.importorskip(package)
    exec(compile(block, "ecosystem.md", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_ones_that_vervet_knows(command):
    assert _parser().parse_args(shlex.split(command)[1:])
