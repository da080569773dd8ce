import base64
import csv
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vervet.audio import read
from vervet.cli import main
from vervet.config import load_recipe, recipe_name
from vervet.evaluation.calibration import calibration_error
from vervet.evaluation.html import charts, write_html
from vervet.evaluation.html.experiment import read_experiment
from vervet.evaluation.protocols import PROTOCOLS
from vervet.evaluation.run import evaluate
from vervet.training.run import train

HOSTILE_FILE = "<img src=x onerror=alert(1)>&amp;.wav"
HOSTILE_SPEAKER = '"></title><script>alert(2)</script>'
VOID = {"meta", "img", "br", "input", "link", "source"}


class Page(HTMLParser):
    """Every element with its attributes and its text."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.by_id: dict[str, str] = {}
        self._open: list[tuple[str, str | None]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self._open == []  # every element is closed

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        if any(tag == "style" for tag, _ in self._open):
            return
        self.words.append(data)
        for _, name in self._open:
            if name:
                self.by_id[name] = self.by_id.get(name, "") + data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, tiny_corpus):
    """Two folds `speaker` and one `paper`, of a corpus whose names are HTML; hardly trained, so often wrong."""
    from conftest import TINY

    folder = tmp_path_factory.mktemp("report")
    (folder / "tiny.yaml").write_text(TINY)
    rows = ["file,emotion,speaker,sex"]
    for number, line in enumerate(tiny_corpus.read_text().splitlines()[1:]):
        file, emotion, speaker = line.split(",")
        name = HOSTILE_FILE.replace("1", str(number))
        shutil.copy(tiny_corpus.parent / file, folder / name)
        spoken = HOSTILE_SPEAKER if speaker == "s0" else speaker
        rows.append(f'{name},{emotion},"{spoken.replace(chr(34), chr(34) * 2)}",{"female" if number < 18 else "male"}')
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    settings = ["--student.epochs=1", "--student.lr=1e-6", "--matching.epochs=1", "--matching.lr=1e-6"]
    words = ["train", str(folder / "tiny.yaml"), "--corpus", "table", "--root", str(folder / "clips.csv"), *settings]
    words += ["--protocol", "speaker", "--out", str(folder / "speaker" / "fold-0")]
    assert main([*words, "--cache", str(folder / "cache"), "--cpu"]) == 0
    for protocol, fold in (("speaker", 1), ("paper", 0)):  # without the export, which takes longest
        recipe, out = load_recipe(folder / "tiny.yaml", settings), folder / protocol / f"fold-{fold}"
        name = recipe_name(folder / "tiny.yaml", settings)
        train(recipe, "table", folder / "clips.csv", protocol, fold, out, folder / "cache", name, ["vervet"], cpu=True)
    return folder


@pytest.fixture
def run(hostile, tmp_path):
    """A copy of the first fold."""
    return shutil.copytree(hostile / "speaker" / "fold-0", tmp_path / "run")


def edit(run, name, **changes):
    path = run / name
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in (record | changes).items() if value is not None}))


def page(hostile, folders, **options):
    return Page(write_html(folders, root=hostile / "clips.csv", **options))


def first_line(page):
    """All words of the first paragraph."""
    return re.sub(r"<[^>]+>", "", page.source.split("<body")[1].split(">", 1)[1].split("</p>")[0]).strip()


def check_self_contained(page):
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    (policy,) = (m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert re.match(r"data:(image/png|audio/flac);base64,|#\w+$", attributes.get(name) or "#none")
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_the_file_loads_nothing_and_every_figure_has_words(hostile, run):
    made = page(hostile, [run], audio=True)
    check_self_contained(made)
    figures = made.all("svg")
    assert len(figures) >= 2 + 2 * 3  # confidence, curves of three stages
    for attributes in [*figures, *(a for tag, a in made.elements if a.get("role") == "img")]:
        assert len(attributes["aria-label"] or "") > 10
    assert all(attributes["aria-label"] for attributes in made.all("audio"))
    assert len(made.all("caption")) == len(made.all("table"))
    assert {attributes["href"] for attributes in made.all("a")} <= {f"#{name}" for name in made.by_id}


def test_numbers_are_those_of_the_run(hostile, run):
    made = page(hostile, [run])
    *others, student = json.loads((run / "metrics.json").read_text())
    for key in ("uar", "wa", "macro_f1"):
        assert made.by_id[key] == f"{100 * student[key]:.1f}\u00a0%"
    for record in (*others, student):
        assert f"{record['network']}{100 * record['uar']:.1f}" in made.by_id["networks"]
    cells = [a["title"] for a in made.all("td") if a.get("style")]
    found = [int(told.split()[0]) for told in cells]
    assert found == [count for row in student["confusion"] for count in row]
    error = student["calibration"]
    assert f"{100 * error['ece']:.1f}\u00a0%" in made.by_id["confidence"]
    assert f"{100 * error['ece_before']:.1f}\u00a0%" in made.by_id["confidence"]
    assert json.loads((run / "run.json").read_text())["split_hash"] in made.by_id["origin"]


def test_protocol_and_audit_come_first(hostile, run):
    made = page(hostile, [run])
    assert first_line(made).startswith(
        "Protocol speaker (speakers are kept apart), audited: neither a test clip nor the test speak"
    )
    assert "leaky" not in made.text.casefold()
    audit = json.loads((run / "audit.json").read_text())
    assert all(sentence in made.text for sentence in audit["verdict"])
    assert "no interval" in made.text  # one speaker


def test_leaky_scores_say_so_everywhere(hostile):
    made = Page(write_html([hostile / "paper" / "fold-0"]))
    assert made.text.startswith("LEAKY: ")  # the title
    first = first_line(made)
    assert first.startswith("Leaky. Protocol paper")
    assert "This score says nothing about new recordings." in first
    assert re.search(r"\d+ of \d+ test items are versions or copies of clips in training", first)
    (body,) = made.all("body")
    assert body["class"] == "leaky"
    assert "no number on this page holds" in made.by_id["limits"]
    assert sum(a.get("class") == "flag" for a in made.all("b")) == 3


def test_an_audit_that_finds_a_leak_is_believed_over_the_protocol(hostile, run):
    audit = json.loads((hostile / "paper" / "fold-0" / "audit.json").read_text())
    (run / "audit.json").write_text(json.dumps(audit))
    assert first_line(page(hostile, [run])).startswith("Leaky. Protocol speaker")


def test_names_from_data_are_text(hostile, run):
    made = page(hostile, [run], audio=True)
    check_self_contained(made)
    assert made.all("img") == []
    assert re.search(r"<img src=x onerror=alert\(\d+\)>&amp;\.wav", made.text)
    assert HOSTILE_SPEAKER in made.text


def test_clips_are_the_most_confident_wrong_answers(hostile, run):
    made = page(hostile, [run], audio=True)
    (student,) = read_experiment([run]).networks[-1].folds
    wrong = np.flatnonzero(~student.right)
    assert len(wrong) > 0
    order = wrong[np.argsort(-student.probabilities.max(1)[wrong], kind="stable")][:8]
    players = made.all("audio")
    assert [player["aria-label"] for player in players] == [student.rows[index]["file"] for index in order]
    for player in players:
        heard, rate = soundfile.read(io.BytesIO(base64.b64decode(player["src"].split(",")[1])))
        recorded, _ = read(hostile / player["aria-label"])
        assert rate == 16_000
        assert heard == pytest.approx(recorded, abs=1e-4)
    assert len(made.all("image")) == len(players)


def test_recordings_are_put_in_only_where_they_may_be(hostile, run):
    made = page(hostile, [run])
    assert made.all("audio") == []
    assert len(made.all("image")) > 0
    assert "whether they may be passed on is for their owner to say" in made.text
    for corpus, allowed, notice in (
        ("savee", False, "not to be passed on"), ("emodb", True, "CC0 1.0"), ("folders", False, "their owner to say"),
        ("emodb+savee", False, "not to be passed on"), ("emodb+cremad", True, "CC0 1.0"),
    ):  # fmt: skip
        edit(run, "run.json", corpus=corpus)
        made = page(hostile, [run])
        assert bool(made.all("audio")) == allowed
        assert notice in made.by_id["clips"]
    assert page(hostile, [run], audio=False).all("audio") == []


def test_every_protocol_says_what_it_keeps_apart(hostile, run):
    for protocol in PROTOCOLS[:-1]:  # `all` tests nothing
        edit(run, "run.json", protocol=protocol)
        assert f"Protocol {protocol} " in page(hostile, [run]).text


def test_without_the_corpus_there_are_no_clips_to_hear(run, monkeypatch, hostile, tmp_path):
    monkeypatch.delenv("VERVET_CORPORA", raising=False)
    made = Page(write_html([run], root=tmp_path))
    assert made.all("image") == made.all("audio") == []
    assert "Not all recordings were found" in made.by_id["clips"]
    assert "--root" in made.by_id["clips"]


def test_a_run_without_calibration_says_how_to_get_it(hostile, run):
    edit(run, "student/model.json", temperature=None, uncertain_below=None)
    made = page(hostile, [run])
    assert "before confidences were calibrated" in made.by_id["confidence"]


def test_a_run_without_validation_clips_cannot_be_calibrated(hostile, run):
    edit(run, "student/model.json", temperature=None, uncertain_below=None)
    edit(run, "run.json", settings=json.loads((run / "run.json").read_text())["settings"] | {"validate": False})
    (student,) = read_experiment([run]).networks[-1].folds
    made = page(hostile, [run])
    error = calibration_error(student.probabilities.max(1), student.right)
    told = made.by_id["confidence"]
    assert (
        "there were none to choose a temperature and a threshold on. Confidences are as the network gives them" in told
    )
    assert f"their expected calibration error is {100 * error:.1f}\u00a0%" in told
    assert "coloured on the validation side" not in made.by_id["training"]


def test_what_it_is_worth_to_know_a_speaker_stands_beside_the_score_of_strangers(hostile, run):
    made = page(hostile, [run])
    assert "enrolment" not in made.by_id
    assert "Enrolment" not in made.text
    with (run / "student" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (run / "student" / "enrolled.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["file", "speaker", "emotion", "10", "1"], extrasaction="ignore")
        table.writeheader()
        table.writerows(row | {"1": row["predicted"], "10": row["emotion"]} for row in rows)
    record = read_experiment([run]).last.record
    made = page(hostile, [run])
    section = made.source.split('<section id="enrolment">')[1].split("</section>")[0]
    strangers = f"{100 * record['uar']:.1f}"
    found = re.findall(r'<th scope="row">(\w+)</th><td>([\d.]+)</td>', section)
    assert found == [("none", strangers), ("1", strangers), ("10", "100.0")]


def test_robustness_is_shown_where_it_is_of_these_recordings(hostile, run):
    assert "vervet evaluate RUN --robustness" in page(hostile, [run]).by_id["robustness"]
    rows = [
        {"kind": "original", "level": "-", "wa": 0.5, "uar": 0.5, "n": 9},
        {"kind": "noise", "level": "<b>0 dB</b>", "wa": 0.25, "uar": 0.2512, "n": 9},
    ]
    (run / "robustness.json").write_text(json.dumps(rows))
    made = page(hostile, [run])
    assert "<b>0 dB</b>" in made.by_id["robustness"]
    assert "25.1" in made.by_id["robustness"]
    assert "\u221224.9" in made.by_id["robustness"]
    (run / "robustness.json").write_text(json.dumps([row | {"n": 10} for row in rows]))
    assert "Not measured" in page(hostile, [run]).by_id["robustness"]


def test_folds_are_pooled(hostile, tmp_path, capsys):
    folds = shutil.copytree(hostile / "speaker", tmp_path / "speaker")
    assert main(["report", str(folds)]) == 0
    assert capsys.readouterr().out.strip() == str(folds / "report.html")
    made = Page(folds / "report.html")
    check_self_contained(made)
    pooled = evaluate([folds / "fold-0", folds / "fold-1"])[-1]
    assert pooled["fold"] == "all"
    assert made.by_id["uar"] == f"{100 * pooled['uar']:.1f}\u00a0%"
    low, high = pooled["uar_interval"]
    assert f"{100 * low:.1f} to {100 * high:.1f}" in made.text
    assert "folds 0 and 1 (of 0 to 4) together" in made.text
    assert "in each fold" in made.text
    assert not [path for path in folds.iterdir() if path.name.startswith(".")]


def test_the_command_line_says_what_it_cannot_do(hostile, run, tmp_path, capsys):
    cases = [
        ([run, hostile / "paper" / "fold-0"], "folds of one experiment"),
        ([run, hostile / "speaker" / "fold-1"], "name the report with --out"),
        ([run, run], "fold given twice"),
        ([run, "--add", run], "name that file instead"),
        ([tmp_path], "holds no run.json"),
        (["results.json", "--out", "x.html"], "no run folder"),
    ]
    for words, message in cases:
        assert main(["report", *map(str, words)]) == 1
        assert message in capsys.readouterr().err
    assert not (run / "report.html").exists()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1100])
def test_a_browser_plays_the_clips_and_asks_for_nothing(hostile, run, width):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium")
    path = write_html([run], root=hostile / "clips.csv", audio=True)
    asked, said = [], []
    with sync_api.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page(viewport={"width": width, "height": 900})
        opened.on("request", lambda request: asked.append(request.url))
        opened.on("console", lambda message: said.append(message.text))
        opened.goto(path.as_uri())
        opened.wait_for_function("[...document.querySelectorAll('audio')].every(player => player.duration > 0.4)")
        assert opened.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert said == []


def test_many_speakers_are_a_strip_of_dots():
    made = charts.strip_chart([(f"s{number}", number / 90) for number in range(91)], 0.5)
    assert made.count("<circle") == 91
    assert "from 0.0\u00a0% (s0) to 100.0\u00a0% (s90)" in made


def test_differences_have_one_sign():
    assert [charts.change(value) for value in (-0.00001, 0.0004, -0.067, 0.011)] == ["0.0", "0.0", "−6.7", "+1.1"]


def test_clips_of_a_network_with_square_patches_are_drawn(hostile, tmp_path):
    square = ["--student_network.patch=[8, 8]", "--stages=student", "--student.alpha=0", "--student.epochs=1"]
    words = ["train", str(hostile / "tiny.yaml"), "--corpus", "table", "--root", str(hostile / "clips.csv"), "--cpu"]
    words += ["--protocol", "speaker", "--out", str(tmp_path / "run"), "--cache", str(hostile / "cache"), *square]
    assert main([*words, "--student.lr=1e-6"]) == 0
    found = page(hostile, [tmp_path / "run"])
    pictures = [attrs for attrs in found.all("image") + found.all("img") if "data:image/png" in str(attrs)]
    assert len(pictures) >= 2
