"""`--cluster`: each recording is answered once, also when a machine dies. The cluster is real, and on this machine."""

import csv
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from onnx_double import LABELS
from predicting import clip, run

from vervet import batch

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'vervet[cluster]'")

from vervet import cluster  # noqa: E402

pytestmark = pytest.mark.slow
FILES = 400
EXPECTED = [(f"{n:03}.wav", 4.0 * window, LABELS[n % 7]) for n in range(FILES) if n % 50 for window in range(3)]


@pytest.fixture(scope="module")
def machines():
    """A head that answers nothing, and two workers, all of them processes of their own."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    made.add_node(num_cpus=1)
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """Links to recordings of 9 s, and files that are none."""
    folder = tmp_path_factory.mktemp("many")
    source = [clip(folder.with_name("source") / f"{label}.wav", label, 9.0) for label in LABELS]
    for number in range(FILES):
        path = folder / f"{number:03}.wav"
        if number % 50:
            os.link(source[number % 7], path)
        else:
            path.write_text("no audio")
    return folder


def rows(out: Path) -> list[tuple[str, float, str]]:
    with out.open(newline="") as file:
        return [(Path(row["file"]).name, float(row["start_s"]), row["label"]) for row in csv.DictReader(file)]


def test_each_recording_is_answered_once_though_a_machine_dies(capsys, model, machines, many, tmp_path, monkeypatch):
    task, begun, ended = cluster._task, tmp_path / "begun", tmp_path / "ended"
    begun.mkdir(), ended.mkdir()
    victim = next(iter(machines.worker_nodes))

    def traced(*arguments):
        name = f"{ray.get_runtime_context().get_node_id()}-{os.getpid()}-{time.time_ns()}"
        (begun / name).touch()
        answers = task(*arguments)
        time.sleep(0.2)
        (ended / name).touch()
        return answers

    def under_way(node_id: str) -> set[str]:
        return {path.name for path in begun.glob(f"{node_id}-*")} - {path.name for path in ended.iterdir()}

    def kill() -> None:
        """End all processes of one worker while it is at work, and others have been answered."""
        while not (any(ended.iterdir()) and under_way(victim.node_id)):
            time.sleep(0.01)
        for name in under_way(victim.node_id):
            os.kill(int(name.split("-")[1]), signal.SIGKILL)
        machines.remove_node(victim, allow_graceful=False)

    monkeypatch.setattr(cluster, "_task", traced)
    out, journal = tmp_path / "x.csv", tmp_path / "x.csv.journal"
    killer = threading.Thread(target=kill)
    killer.start()
    code, _, err = run(capsys, model, many, "--out", out, "--cluster", machines.address)
    killer.join()
    assert under_way(victim.node_id)  # it died with work in hand
    assert sorted(rows(out)) == EXPECTED
    assert code == 1
    assert err.count("not audio") == FILES / 50
    before = journal.read_bytes()
    assert run(capsys, model, many, "--out", out, "--cluster", machines.address)[0] == 1
    assert journal.read_bytes() == before


def test_a_recording_that_kills_its_reader_costs_no_other_its_answer(model, machines, many, monkeypatch):
    task = cluster._task

    def deadly(name, shared, items, *windowing):
        if any(item.path.name == "003.wav" for item in items):
            os.kill(os.getpid(), signal.SIGKILL)
        return task(name, shared, items, *windowing)

    monkeypatch.setattr(cluster, "_task", deadly)
    monkeypatch.setattr(cluster, "RETRIES", 0)
    items = list(batch.find([many]))[1:9]
    answers = list(cluster.predict_many(model, items, machines.address))
    assert sorted(answer.item.file for answer in answers) == [item.file for item in items]
    (problem,) = [answer.problem for answer in answers if not answer.predictions]
    assert problem.startswith(f"{items[2].path}: every worker that read it died (WorkerCrashedError)")


def test_faults_of_the_cluster_are_named(capsys, model, machines, many, monkeypatch, tmp_path):
    def broken(name, shared, items, *windowing):
        raise ModuleNotFoundError("No module named 'vervet'")

    monkeypatch.setattr(cluster, "_task", broken)
    code, _, err = run(capsys, model, many, "--out", tmp_path / "x.csv", "--cluster", machines.address)
    assert code == 1
    assert f"the cluster at {machines.address} failed (ModuleNotFoundError: No module named 'vervet')" in err
    code, _, err = run(capsys, model, many, "--cluster", machines.address, "--jobs", "2")
    assert (code, err.count("--jobs 2 is for this machine")) == (1, 1)
    code, _, err = run(capsys, model, many, "--jobs", "0", "--cluster")
    assert (code, err.count("0 jobs: give at least 1")) == (1, 1)
    code, _, err = run(capsys, model, many, "--window-s", "9", "--cluster")
    assert (code, "failed" in err, err.count("window of 9 s: this model hears 4 s at once")) == (1, False, 1)


def test_a_cluster_is_started_where_none_is_named(capsys, model, many, tmp_path):
    dataset = pytest.importorskip("pyarrow.dataset")
    out = tmp_path / "x.parquet"
    paths = [many / f"{number:03}.wav" for number in range(1, 20)]
    assert run(capsys, model, *paths, "--out", out, "--jobs", "1", "--cluster")[0] == 0
    found = dataset.dataset(out, format="parquet").to_table(columns=["file", "start_s", "label"]).to_pylist()
    assert sorted((Path(row["file"]).name, row["start_s"], row["label"]) for row in found) == EXPECTED[: 19 * 3]
    assert not ray.is_initialized()


def test_a_path_is_not_taken_for_an_address(capsys, model, many):
    code, _, err = run(capsys, model, many / "001.wav", "--cluster", many)
    assert code == 1
    assert f"--cluster {many}: is a path, not the address of a cluster; write --cluster last" in err
