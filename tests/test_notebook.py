"""The notebook runs from top to bottom, as a student would run it."""

import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOK = EXAMPLES / "vervet.ipynb"
CELL_TIMEOUT_S = 900


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: the notebook is not run")
    kernelspec = pytest.importorskip(
        "ipykernel.kernelspec", reason="ipykernel is not installed: the notebook is not run"
    )
    import nbformat

    kernelspec.write_kernel_spec(tmp_path / "kernels" / "own")  # the interpreter that runs this test
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    published = _printed(notebook)
    before = sorted(EXAMPLES.iterdir())
    client = nbclient.NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, kernel_name="own", resources={"metadata": {"path": str(EXAMPLES)}}
    )
    client.execute()
    printed = _printed(notebook)
    (right,) = re.findall(r"\d+ of 14 right", printed)
    assert right in published  # it was published with the model that ships
    assert "LEAKY: 12 of 12 (100.0%) test items are versions or copies of clips in training" in printed
    assert "14 clips; guessing would have a UAR of 50.0%" in printed
    assert sorted(EXAMPLES.iterdir()) == before  # it writes nothing beside itself


def _printed(notebook) -> str:
    return "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    )


def test_it_is_published_as_it_ran():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert sum("image/jpeg" in output.get("data", {}) for cell in code for output in cell.outputs) >= 4
    assert NOTEBOOK.stat().st_size < 500_000
    assert "/tmp" not in NOTEBOOK.read_text()
