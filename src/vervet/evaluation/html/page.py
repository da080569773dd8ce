"""The page: sections and charts put into the template, and written whole or not at all."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vervet.evaluation.calibration import calibration_error
from vervet.evaluation.html import charts, clips, sections
from vervet.evaluation.html.experiment import Experiment, read_experiment
from vervet.files import write_whole

MANY_SPEAKERS = 24  # beyond this, their table is folded and a strip of dots is shown


def write_html(
    folders: Sequence[Path], out: Path | None = None, root: Path | None = None, audio: bool | None = None
) -> Path:
    """Write the report of a run, or of all folds of an experiment, as one HTML file.

    Parameters
    ----------
    folders : sequence of Path
        Run folders of one experiment, or the folder that holds its folds.
    out : Path, optional
        The file; `report.html` in the run folder where not given, of several folds in the folder of the folds.
    root : Path, optional
        Folder or table of the corpus, for the pictures and players of the hardest clips; otherwise looked for under
        VERVET_CORPORA. Where it is not found, the report has no players and says so.
    audio : bool, optional
        Whether recordings are put into the file. Where not given: those of EmoDB and CREMA-D, whose licences allow it,
        and not those of SAVEE or of a table.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If a folder holds no finished run, the runs are not folds of one experiment, or lie in different folders and
        `out` is not given.
    """
    experiment = read_experiment(folders)
    if out is None and len({folder.resolve().parent for folder in experiment.folders}) > 1:
        raise ValueError("the folds lie in different folders; name the report with --out FILE.html")
    path = out or experiment.home / "report.html"
    content = render(experiment, root, audio)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    return path


def render(experiment: Experiment, root: Path | None, audio: bool | None) -> str:
    """The page as text; arguments as for `write_html`."""
    environment = Environment(
        loader=PackageLoader("vervet.evaluation.html", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": charts.percent, "points": charts.points, "change": charts.change}
    speakers, confidence = sections.speakers(experiment), sections.confidence(experiment)
    many = len(speakers) > MANY_SPEAKERS
    record = experiment.last.record
    return environment.get_template("page.html").render(
        style=Markup((Path(__file__).parent / "page.css").read_text(encoding="utf-8")),
        title=sections.title(experiment),
        verdict=sections.verdict(experiment),
        headline=sections.headline(experiment),
        compared=sections.compared(experiment),
        confusion=sections.confusion(experiment),
        speakers=speakers,
        strip=charts.strip_chart([(one["name"], one["wa"]) for one in speakers], record["wa"]) if many else None,
        sexes=sections.sexes(experiment),
        enrolled=sections.enrolled(experiment),
        confidence=confidence,
        validated=experiment.validated,
        uncalibrated=calibration_error(experiment.last.probabilities.max(1), experiment.last.right),
        reliability=charts.reliability_chart(confidence["before"], confidence["after"]) if confidence else None,
        rejection=_rejection(confidence) if confidence else None,
        robustness=sections.robustness(experiment),
        original=experiment.robustness[0] if experiment.robustness else None,
        curves=_curves(experiment),
        hard=clips.hardest(experiment, root, audio),
        provenance=sections.provenance(experiment),
        limits=sections.limits(experiment),
        record=record,
        version=version("vervet"),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )


def _rejection(confidence: dict) -> Markup:
    return charts.rejection_chart(
        confidence["rejection"], confidence["answered"], confidence["wa_answered"], confidence["wa"]
    )


def _curves(experiment: Experiment) -> list[tuple[str, Markup, Markup]]:
    folds = experiment.histories
    stages = dict.fromkeys(row["stage"] for fold in folds for row in fold)
    return [
        (stage, charts.curve_chart(folds, stage, "loss"), charts.curve_chart(folds, stage, "uar")) for stage in stages
    ]
