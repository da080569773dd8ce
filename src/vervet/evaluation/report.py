"""The Markdown page of results, and its pictures, made from the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vervet.config import VERSIONS
from vervet.corpora import title_of
from vervet.evaluation.ablation import Ablation, ablations, is_ablation
from vervet.evaluation.claims import CLAIMS, Claim, Evidence, Verdict, between, evidence
from vervet.evaluation.metrics import mean_spread
from vervet.evaluation.records import NETWORKS, Record, all_folds, key_of, load, order, summarise
from vervet.files import write_whole

OLDER = "-1429"  # ends the name of networks whose second head read 1,429 functionals, before it heard pitch

# Kim & Lee: corpus, WA of the teacher and of the student, and the WA that their figure of the confusion matrix gives.
PUBLISHED_SOURCE = "Kim & Lee, IEEE Access 2024, doi:10.1109/ACCESS.2024.3447770"
PUBLISHED = {
    "emodb": {"teacher": 96.96, "student": 98.83, "figure": 99.77},
    "savee": {"teacher": 98.17, "student": 98.95, "figure": 99.48},
    "cremad": {"teacher": 92.64, "student": 94.07, "figure": 95.25},
}

PUBLISHED_TEST = {"emodb": 428, "savee": 384, "cremad": 5954}  # clips, the sums of those matrices

# Corpus and split, system, its parameters in millions and multiply-accumulates for 4 s in billions where known, UAR,
# WA, where the scores are from. The costs are counted by benchmarks/reference_networks.py or are the authors' own.
_BLOCKS, _LOSO = "CREMA-D, 5 blocks of disjoint actors", "leave one speaker out"
_SVM_SOURCE = "baseline run for this comparison on the same folds; not a Vervet network"
_EMOBOX = "EmoBox (Ma et al., INTERSPEECH 2024)"
_TIMNET = "TIM-Net (Ye et al., ICASSP 2023), corrected for choosing the epoch on the test fold"
_RATERS = "Cao et al., IEEE Transactions on Affective Computing 2014"
_BASE = ("94.4", "28.5")
REFERENCES = (
    (_BLOCKS, "WavLM-base+ fine-tuned", *_BASE, "73.34", "73.39", "literature, same folds"),
    (_BLOCKS, "HuBERT-base fine-tuned", *_BASE, "", "72.57", "literature, same folds"),
    (_BLOCKS, "wav2vec2-base fine-tuned", *_BASE, "", "72.41", "literature, same folds"),
    (_BLOCKS, "HiCMAE-B, audio branch", "", "", "71.11", "71.01", "HiCMAE (Sun et al., Information Fusion 2024)"),
    (_BLOCKS, "SVM (rbf) on openSMILE ComParE", "", "", "59.1", "58.9", _SVM_SOURCE),
    (_BLOCKS, "SVM (rbf) on openSMILE eGeMAPS", "", "", "51.8", "51.6", _SVM_SOURCE),
    ("CREMA-D, disjoint actors", "CNN-BiLSTM on MFCC", "0.93", "", "56.69", "56.45", "literature"),
    ("CREMA-D", "2,443 human raters, audio only", "", "", "40.7", "40.9", _RATERS),
    (f"EmoDB, {_LOSO}", "SVM (rbf) on openSMILE ComParE", "", "", "77.0", "78.7", _SVM_SOURCE),
    (f"EmoDB, {_LOSO}", "SVM (rbf) on openSMILE eGeMAPS", "", "", "65.2", "66.7", _SVM_SOURCE),
    (
        f"EmoDB, {_LOSO}", "Light-SERNet, 0.88 MB", "", "", "94.15", "94.21",
        "Light-SERNet (Aftab et al., ICASSP 2022); its best epoch was chosen on the test fold, so too high",
    ),
    ("EmoDB, random 10 folds by clip", "TIM-Net, 0.4 MB", "", "", "89.19", "90.28", _TIMNET),
    (f"SAVEE, {_LOSO}", "Whisper large v3 encoder", "637.0", "1,136.9 (it pads to 30 s)", "74.07", "77.24", _EMOBOX),
    (f"SAVEE, {_LOSO}", "WavLM large encoder", "315.5", "73.7", "66.74", "70.80", _EMOBOX),
    (f"SAVEE, {_LOSO}", "wav2vec2-base encoder", *_BASE, "44.89", "49.83", _EMOBOX),
    (f"SAVEE, {_LOSO}", "SVM (rbf) on openSMILE ComParE", "", "", "45.6", "47.5", _SVM_SOURCE),
    (f"SAVEE, {_LOSO}", "SVM (rbf) on openSMILE eGeMAPS", "", "", "32.0", "34.2", _SVM_SOURCE),
    ("SAVEE, random 10 folds by clip", "TIM-Net, 0.4 MB", "", "", "77.26", "79.36", _TIMNET),
)  # fmt: skip


def write(results_path: Path) -> Path:
    """Write README.md beside results.json, with its pictures: `leakage.png`, `enrolled.png`, `ablations-CORPUS.png`.

    Parameters
    ----------
    results_path : Path
        The file of records. What is to be said of them besides stands in `notes.md` in its folder, if there is one.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ValueError, OSError
        As for `load`.
    """
    from vervet.evaluation.figures import ablation_figure, enrolled_figure, leakage_figure  # matplotlib

    page, records, notes = results_path.with_name("README.md"), load(results_path), results_path.with_name("notes.md")
    write_whole(page, markdown(records, notes.read_text(encoding="utf-8") if notes.exists() else ""))
    bars = _bars(records)
    if bars:
        networks = {bar["network"] for bar in bars}
        what = networks.pop() if len(networks) == 1 else "network and recipe"
        figure = leakage_figure(bars, f"What each protocol makes of the same {what}")
        figure.savefig(results_path.with_name("leakage.png"))
    if lines := _enrolled_lines(records):
        figure = enrolled_figure(lines, "What it is worth to know a speaker")
        figure.savefig(results_path.with_name("enrolled.png"))
    for corpus, changes in _compared(records).items():
        figure = ablation_figure(changes, f"{title_of(corpus)}: what each change does to WA")
        figure.savefig(results_path.with_name(f"ablations-{corpus}.png"))
    return page


def _compared(records: Sequence[Record]) -> dict[str, list[Ablation]]:
    """Corpus -> its ablations that have a recipe to be compared with."""
    found: dict[str, list[Ablation]] = {}
    for one in ablations(records):
        if one.wa_gain is not None and one.network in NETWORKS:
            found.setdefault(one.corpus, []).append(one)
    return found


def _bars(records: Sequence[Record]) -> list[Record]:
    """What can be compared, as bars: a network and recipe that ran under `paper` and over all folds of another one."""
    bars: dict[tuple, Record] = {}  # of several sets of folds the largest, which comes first
    for row in summarise([record for record in records if not is_ablation(record)]):
        total = all_folds(row["corpus"], row["protocol"])
        if row["network"] not in NETWORKS or (not row["leaky"] and total is not None and len(row["folds"]) < total):
            continue
        network = f"{row['network']} ({row['recipe']})"
        bar = {"corpus": title_of(row["corpus"]), "protocol": row["protocol"], "network": network}
        limits = {key: row[key] for key in ("wa_interval", "uar_interval")}
        bar |= limits | {"leaky": row["leaky"]} | {key: row[key][0] for key in ("wa", "uar")}
        bars.setdefault((bar["corpus"], bar["protocol"], bar["network"]), bar)
    sides: dict[tuple, set[bool]] = {}
    for bar in bars.values():
        sides.setdefault((bar["corpus"], bar["network"]), set()).add(bar["leaky"])
    return [bar for bar in bars.values() if len(sides[bar["corpus"], bar["network"]]) == 2]


def markdown(records: Sequence[Record], notes: str = "") -> str:
    """Make the results page.

    Parameters
    ----------
    records : sequence of dict
        See `validate`.
    notes : str, optional
        What is to be said of these runs, as Markdown: paragraphs for the head of the page, and sections, each with a
        heading of the second level, for its end.

    Returns
    -------
    str
        Markdown: the leaky table, the honest one, why they differ, what is missing, and what others report.
    """
    said, heading, sections = f"\n{notes.strip()}".partition("\n## ")
    rows = summarise([record for record in records if not is_ablation(record)])
    leaky, honest = [row for row in rows if row["leaky"]], [row for row in rows if not row["leaky"]]
    parts = [
        _HEAD,
        said.strip(),
        "## Leaky: protocol `paper`",
        _LEAKY,
        _table(leaky) if leaky else "Nothing is measured yet.",
        "## Honest: protocols `clip` and `speaker`",
        _HONEST,
        _table(honest) if honest else "Nothing is measured yet.",
        *_enrolled_parts(records),
        "## Why they differ",
        "![WA by protocol](leakage.png)" if _bars(records) else "",
        _WHY,
        _contrast(rows),
        *_copies_parts(records),
        *_confidence_parts(records),
        *_predicting_parts(records),
        *_claims_parts(records),
        *_ablation_parts(records),
        "## What each network costs",
        _costs(),
        (heading + sections).strip(),
        "## Not measured",
        _gaps(rows),
        "## References: not ours",
        _references(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_HEAD = """# Results

This page is generated by `vervet report` from [results.json](results.json), and from `notes.md` where that lies beside
it: change these, not this. WA is overall accuracy, UAR the mean recall over the emotions; all scores are per cent. A
row pools the predictions of the folds that it names; `a ± b` is mean and sample standard deviation over its seeds. In
brackets, where it could be had, stands the 95 % interval from resampling speakers (with several seeds, the mean of
their limits). Epochs are fixed by the recipe, or chosen on validation clips from the training side.

A command makes its row at the commit that is filed with it; an ellipsis between two commands stands for those of the
other folds and seeds, and results.json holds them all, with commit, machine and split. A row `from` another corpus has
the commit of its model."""

_LEAKY = """These scores do not say how well emotion is recognised in new recordings. They repeat the published
protocol, so that they can be held against the published figures, and against nothing else."""

_HONEST = """`clip` keeps all versions of a clip on one side, but its speakers are heard in training. `speaker` tests on
speakers who are not: it is the one that says what to expect of a stranger."""

_ENROLLED = """UAR of the same networks, clip by clip, when they are told what other clips of the same unheard speaker
sound like: the mean of each Mel band over these and the clip itself; with a second head (`student+functionals`), also
the mean and the deviation of each functional over these. Nobody says what was felt in the others; they are
drawn at random from the test side, and none is the clip that is scored. So these rows, unlike those above, have heard
the speaker."""

_ABLATIONS = """One setting of a recipe is changed; all else stays, folds and seeds included. The changes of WA and UAR
are in points, against the recipe as it is on the same folds and seeds; `a ± b` is mean and sample standard deviation of
the differences, seed by seed. Under `paper` one seed has 428 test items (EmoDB) or 384 (SAVEE): a point is four items,
and two points are within chance. Honest folds are smaller still. As above, the two runs may be of different machines
and precisions."""

_COPIES = """WA on the test items of each version, of runs that were filed since it is counted."""

_CONFIDENCE = """Each fold chose a temperature and a threshold on its validation clips, whose speakers it had not
heard under `speaker`. The expected calibration error, in points, is how far confidence and accuracy lie apart on the
test clips, without and with that temperature. Answers under the threshold are `uncertain`; the last column says how
often the others are right."""

_PREDICTING = """Rows `from` other corpora ask a model only about emotions that it shares with the corpus that tests it.
`vervet predict` answers among all that the model knows, which is harder. Here the same clips are answered so. "Not
uncertain" and "WA of these" stand where the model has a threshold, which was chosen on other corpora."""

_CLAIMS = """Each claim is held against pairs of runs on the same folds and seeds. A difference is given in points of
WA, and with it how large it must be to be more than chance (95 %). Under `speaker` that comes from how differently it
falls out for the speakers tested (Student's t), since others might have been; of three or four speakers little can be
told. Under the other protocols it comes from the number of clips of one seed, as if the two runs were independent,
which errs towards "cannot be told". A leaky row repeats the paper's own comparison; the others say whether it means
anything for new clips and new voices. A student without positions cannot tell which bands a patch holds that is not a
column: so other shapes are also tried with learned positions. Both sides have the epochs of the recipe, so what learns
more slowly looks worse than it might become: a teacher without a stem does not know its training items yet when the
twelve epochs of `fast` end. `alone` has other epochs, rates and averaging than the recipes it is held against: what it
says of the transfer says that too. Chance alone passes in one comparison of twenty. The first table counts the
comparisons of our own runs under these protocols.

The two runs of a pair need not be of one machine; results.json says which."""

_VERDICTS = {"holds": "holds", "the opposite holds": "does **not** hold", "within chance": "cannot be told"}
_CLAIM_PROTOCOLS = ("paper", "clip", "speaker")

_WHY = """Under `paper` every clip first becomes four: itself, and copies with altered speed, added noise and shifted
start. Then the copies are dealt at random to training and test. For 99.2 % of the test items another version of the
very same recording is therefore among the training items, and all speakers and sentences are on both sides: the network
is asked mostly to recognise recordings that it has already heard. `clip` takes the copies away from the test side, and
with them that shortcut. `speaker` takes away the voices too. Network and recipe of a row are the same in both tables;
the distance between them is what the shortcuts are worth."""


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _cell(score: tuple[float, float | None], limits: tuple[float, float] | None = None) -> str:
    mean, spread = score
    text = _percent(mean) if spread is None else f"{_percent(mean)} ± {_percent(spread)}"
    return text if limits is None else f"{text} [{_percent(limits[0])}, {_percent(limits[1])}]"


def _ranges(numbers: Iterable[int]) -> str:
    """0, 1, 2, 4 -> "0-2, 4"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _folds_cell(row: Record) -> str:
    total, folds = all_folds(row["corpus"], row["protocol"]), row["folds"]
    if not folds:
        return "all"
    if total is None:
        return _ranges(folds)
    return f"all {total}" if len(folds) == total else f"{_ranges(folds)} ({len(folds)} of {total})"


def _commands_cell(commands: Sequence[str]) -> str:
    shown = [commands[0]] if len(commands) == 1 else [commands[0], commands[-1]]
    code = [f"`{command.replace('|', chr(92) + '|')}`" for command in shown]
    return (" … " if len(commands) > 2 else " ").join(code)


def _table(rows: Sequence[Record]) -> str:
    """One table; the published score stands beside the leaky ones, with which alone it can be compared."""
    leaky = rows[0]["leaky"]
    head = ["corpus", "protocol", "network", "recipe", "folds", "seeds", "test clips", "WA", "UAR", "macro-F1"]
    body = []
    for row in rows:
        cells = [
            title_of(row["corpus"]),
            f"`{row['protocol']}`" + (" (leaky)" if leaky else ""),
            row["network"],
            f"`{row['recipe']}`",
            _folds_cell(row),
            _ranges(row["seeds"]),
            " or ".join(f"{n:,}" for n in row["n_test"]),
            _cell(row["wa"], row["wa_interval"]),
            _cell(row["uar"], row["uar_interval"]),
            _cell(row["macro_f1"]),
        ]
        if leaky:
            published = PUBLISHED.get(row["corpus"], {}).get(row["network"]) if row["protocol"] == "paper" else None
            cells.append(f"{published:.2f}" if published else "")
        body.append([*cells, _commands_cell(row["commands"])])
    return _grid([*head, *(["published WA (not ours)"] if leaky else []), "command"], body)


def _grid(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *body))


def _tells(one: Record) -> bool:
    """Whether a record is of unleaked answers to all test clips: of all folds, of several corpora of the one tested."""
    return (one["fold"] == "all" or "+" in one["corpus"]) and not one["leaky"]


def _only_fold(one: Record) -> tuple[int, ...]:
    return () if one["fold"] == "all" else (one["fold"],)


def _enrolled_groups(records: Sequence[Record]) -> list[list[Record]]:
    """The records that say what it is worth to know a speaker: a list of seeds for each experiment."""
    groups: dict[tuple, list[Record]] = {}
    for one in sorted(records, key=order):
        if _tells(one) and "enrolled" in one:
            groups.setdefault((*key_of(one)[:4], len(one.get("folds", ())), _only_fold(one)), []).append(one)
    return list(groups.values())


def _enrolled_counts(groups: Sequence[Sequence[Record]]) -> list[str]:
    return sorted({count for members in groups for count in members[0]["enrolled"]}, key=int)


def _enrolled_lines(records: Sequence[Record]) -> list[dict[str | int, Any]]:
    """What `enrolled_figure` draws: recipes as they are, and networks with the second head as it is now."""
    groups = _enrolled_groups(records)
    lines = []
    for members in groups:
        first = members[0]
        corpus, elsewhere = title_of(first["corpus"]), first["protocol"].startswith("from ")
        words, *start = first["recipe"].split(" from ")
        recipe, *settings = words.split(" --")
        changed = [setting for setting in settings if not setting.startswith("validate=")]  # which changes who trains
        if changed or "=" in "".join(start) or first["network"].endswith(OLDER):
            continue
        name = "\n".join([recipe, *(f"from {one}" for one in start), *([first["protocol"]] if elsewhere else [])])
        line: dict[str | int, Any] = {"name": name, "dashed": "+" not in first["network"]}
        line["panel"] = f"{corpus}, trained on {'another corpus' if elsewhere else 'other speakers'}"
        for count in ("0", *_enrolled_counts(groups)):
            sides = members if count == "0" else [one["enrolled"][count] for one in members]
            line[int(count)] = mean_spread([one["uar"] for one in sides])[0], _mean_interval(sides)
        lines.append(line)
    return sorted(lines, key=lambda line: "another" in line["panel"])


def _enrolled_parts(records: Sequence[Record]) -> list[str]:
    """A heading, a picture and a table of what it is worth to know a speaker; nothing where it was not measured."""
    groups = _enrolled_groups(records)
    if not groups:
        return []
    counts = _enrolled_counts(groups)
    told = [f"told of {count} clip{'' if count == '1' else 's'}" for count in counts]
    body = []
    for members in groups:
        first = members[0]
        cells = [
            title_of(first["corpus"]), f"`{first['protocol']}`, enrolled", first["network"],
            f"`{first['recipe']}`", _folds_cell(first | {"folds": first.get("folds") or _only_fold(first)}),
            _ranges(one["seed"] for one in members), _score(members),
        ]  # fmt: skip
        sides = ([one["enrolled"][count] for one in members] for count in counts)
        body.append([*cells, *(_score(side) for side in sides)])
    head = ["corpus", "protocol", "network", "recipe", "folds", "seeds", "told of none", *told]
    picture = "![UAR over the number of clips that are known of a speaker](enrolled.png)"
    return ["## Enrolled: speakers of whom something is known", picture, _ENROLLED, _grid(head, body)]


def _mean_interval(members: Sequence[Record]) -> tuple[float, float] | None:
    limits = [one["uar_interval"] for one in members]
    return None if None in limits else tuple(np.mean(limits, axis=0).tolist())


def _score(members: Sequence[Record]) -> str:
    """UAR over seeds, with its interval where there is one."""
    return _cell(mean_spread([one["uar"] for one in members]), _mean_interval(members))


def _copies_parts(records: Sequence[Record]) -> list[str]:
    """A heading and a table of how well clips and their altered copies are known; nothing where nobody counted."""
    found = sorted((one for one in records if "by_version" in one), key=order)
    if not found:
        return []
    versions = [version for version in VERSIONS if any(version in one["by_version"] for one in found)]
    head = ["corpus", "protocol", "network", "recipe", "fold", "seed", *versions, "all, WA"]
    body = []
    for one in found:
        copies = one["by_version"]
        body.append([
            title_of(one["corpus"]), f"`{one['protocol']}` (leaky)", one["network"],
            f"`{one['recipe']}`", str(one["fold"]), str(one["seed"]),
            *(_percent(copies[version]["wa"]) if version in copies else "" for version in versions),
            _percent(one["wa"]),
        ])  # fmt: skip
    return ["### Which copies are known again", _COPIES, _grid(head, body)]


def _confidence_parts(records: Sequence[Record]) -> list[str]:
    """A heading and a table of what confidences are worth on unleaked test sides; nothing where none was measured."""
    found = [one for one in records if _tells(one) and "calibration" in one]
    if not found:
        return []
    head = ["corpus", "protocol", "network", "recipe", "seed", "test clips", "calibration error before", "after", "WA",
            "not uncertain", "WA of these"]  # fmt: skip
    body = []
    for one in sorted(found, key=order):
        worth = one["calibration"]
        body.append([
            title_of(one["corpus"]), f"`{one['protocol']}`", one["network"], f"`{one['recipe']}`",
            str(one["seed"]), f"{one['n_test']:,}", _percent(worth["ece_before"]), _percent(worth["ece"]),
            _percent(one["wa"]), _percent(worth["answered"]),
            "" if worth["wa_answered"] is None else _percent(worth["wa_answered"]),
        ])  # fmt: skip
    return ["## What a confidence is worth", _CONFIDENCE, _grid(head, body)]


def _predicting_parts(records: Sequence[Record]) -> list[str]:
    """A heading and a table of answers among all emotions of a model; nothing where none was measured."""
    found = [one for one in records if "answers" in one.get("predicting", {})]
    if not found:
        return []
    head = ["corpus", "protocol", "network", "recipe", "seed", "test clips", "WA, shared emotions", "WA, all",
            "not uncertain", "WA of these", "told of 10 clips, WA", "most often answered"]  # fmt: skip
    body = []
    for one in sorted(found, key=order):
        said = one["predicting"]
        answers = sum((Counter(counts) for counts in said["answers"].values()), Counter())
        sure = [said[key] for key in ("answered", "wa_answered")] if "answered" in said else [None, None]
        body.append([
            title_of(one["corpus"]), f"`{one['protocol']}`", one["network"], f"`{one['recipe']}`",
            str(one["seed"]), f"{one['n_test']:,}", _percent(one["wa"]), _percent(said["wa"]),
            *("" if value is None else _percent(value) for value in sure),
            _percent(said["wa_enrolled"]["10"]) if "wa_enrolled" in said else "",
            ", ".join(f"{label} {_percent(count / one['n_test'])}" for label, count in answers.most_common(2)),
        ])  # fmt: skip
    return ["## As `vervet predict` answers", _PREDICTING, _grid(head, body)]


def _claims_parts(records: Sequence[Record]) -> list[str]:
    """A heading, how each claim of the paper fares, and for each a table of what was measured about it."""
    found = {claim: evidence(claim, records) for claim in CLAIMS}
    parts = ["## What the paper claims, and what is seen here", _CLAIMS, _claim_summary(found)]
    for claim in CLAIMS:
        shown = sorted(found[claim], key=lambda one: (one.protocol != "paper", one.protocol == "speaker"))
        shown += _published_evidence() if claim is CLAIMS[0] else []
        parts += [f"### {claim.text}", _claim_table(shown) if shown else "Not measured yet."]
    return parts


def _claim_summary(found: dict[Claim, list[Evidence]]) -> str:
    """A claim a row, a protocol a column: how many comparisons went which way."""
    body = [
        [claim.text, *(_tally([one.verdict for one in of_claim if one.protocol == name]) for name in _CLAIM_PROTOCOLS)]
        for claim, of_claim in found.items()
    ]
    return _grid(["claim", *(f"`{name}`" + (" (leaky)" if name == "paper" else "") for name in _CLAIM_PROTOCOLS)], body)


def _tally(verdicts: Sequence[Verdict]) -> str:
    """What the verdicts say together: "holds in 3 of 4, cannot be told in 1"."""
    counted = [(verdict, verdicts.count(verdict)) for verdict in _VERDICTS if verdict in verdicts]
    if len(counted) == 1:
        return f"{_VERDICTS[verdicts[0]]}, {len(verdicts)} of {len(verdicts)}"
    return ", ".join(
        f"{_VERDICTS[verdict]} in {n}" + (f" of {len(verdicts)}" if place == 0 else "")
        for place, (verdict, n) in enumerate(counted)
    )


def _published_evidence() -> list[Evidence]:
    """The student and the teacher as published, by the same rule."""
    sides = ("student", "as published"), ("teacher", "as published")
    return [
        between(corpus, "paper", sides, 1, PUBLISHED_TEST[corpus], wa["student"] / 100, wa["teacher"] / 100)
        for corpus, wa in PUBLISHED.items()
    ]


def _claim_table(found: Sequence[Evidence]) -> str:
    head = ["corpus", "protocol", "said to be better", "than", "seeds", "over", "WA, difference", "so it"]
    body = [
        [
            title_of(one.corpus),
            f"`{one.protocol}`" + (" (leaky)" if one.protocol == "paper" else ""),
            *(f"{network}, `{recipe}`" for network, recipe in (one.better, one.other)),
            f"{one.seeds}",
            f"{one.speakers} speakers" if one.speakers else f"{one.n_test:,} clips",
            f"{_gain(one.gain)} ± {_percent(one.margin)}",
            _VERDICTS[one.verdict],
        ]
        for one in found
    ]
    return _grid(head, body)


def _ablation_parts(records: Sequence[Record]) -> list[str]:
    """A heading, a picture per corpus, and a table per question; nothing where nothing was changed."""
    found = ablations(records)
    if not found:
        return []
    parts = ["## Ablations: one setting changed", _ABLATIONS]
    parts += [f"![{title_of(corpus)}](ablations-{corpus}.png)" for corpus in _compared(records)]
    for question in dict.fromkeys(one.question for one in found):
        parts += [f"### {question}", _ablation_table([one for one in found if one.question == question])]
    return parts


def _ablation_table(found: Sequence[Ablation]) -> str:
    head = ["corpus", "protocol", "network", "recipe", "changed", "folds", "seeds", "test clips", "WA", "change", "UAR",
            "change"]  # fmt: skip
    body = [
        [
            title_of(one.corpus),
            f"`{one.protocol}`" + (" (leaky)" if one.protocol == "paper" else ""),
            one.network,
            f"`{one.recipe}`",
            ", ".join(f"`{setting}`" for setting in one.change),
            _folds_cell({"corpus": one.corpus, "protocol": one.protocol, "folds": one.folds}),
            _ranges(one.seeds),
            f"{one.n_test:,}",
            _cell(one.wa),
            _change(one.wa_gain),
            _cell(one.uar),
            _change(one.uar_gain),
        ]
        for one in found
    ]
    return _grid(head, body)


def _change(gain: tuple[float, float | None] | None) -> str:
    text = "" if gain is None else _cell(gain)
    return f"+{text}" if text and not text.startswith("-") else text


def _gain(gain: float | None) -> str:
    return "" if gain is None else f"{100 * gain:+.1f}"


def _contrast(rows: Sequence[Record]) -> str:
    """One line per network that was measured under `paper` and under `speaker`, by the same recipe."""
    score = {(row["corpus"], row["network"], row["recipe"], row["protocol"]): row for row in reversed(rows)}
    lines = []
    for row in rows:
        honest = score.get((row["corpus"], row["network"], row["recipe"], "speaker"))
        if row["leaky"] and honest:
            lines.append(
                f"- {title_of(row['corpus'])}, {row['network']}, recipe `{row['recipe']}`: "
                f"WA {_cell(row['wa'])} leaky (folds {_folds_cell(row)}), "
                f"{_cell(honest['wa'])} on unheard speakers (folds {_folds_cell(honest)})."
            )
    return "\n".join(lines)


def _gaps(rows: Sequence[Record]) -> str:
    """List what the tables lack of the three corpora under three protocols, teacher and student, by any recipe."""
    lines = []
    for corpus in PUBLISHED:
        for protocol in ("paper", "clip", "speaker"):
            for network in ("teacher", "student"):
                found = [
                    row
                    for row in rows
                    if (row["corpus"], row["protocol"], row["network"]) == (corpus, protocol, network)
                ]
                gap = _gap(found, all_folds(corpus, protocol), protocol)
                if gap:
                    leaky = " (leaky)" if protocol == "paper" else ""
                    lines.append(f"- {title_of(corpus)}, `{protocol}`{leaky}, {network}: {gap}")
    return "\n".join(lines) or "All folds of all three corpora, teacher and student, are measured under each protocol."


def _gap(rows: Sequence[Record], total: int | None, protocol: str) -> str:
    if not rows:
        return "nothing."
    most = max(len(row["folds"]) for row in rows)
    if total is None or most >= total or any(not row["folds"] for row in rows):
        return ""
    if protocol == "paper":  # the published figures are of one random split
        return ""
    return f"{total - most} of {total} folds, whichever the recipe."


def _costs() -> str:
    """Parameters and multiply-accumulates of our networks, counted."""
    from vervet.evaluation.complexity import describe

    body = []
    for network in (*NETWORKS, "vervet"):
        known = describe(network, 7)
        body.append(
            [
                "student of `vervet`" if network == "vervet" else network,
                f"{known['parameters'] / 1e6:.2f}",
                f"{known['macs'] / 1e9:.3f}",
            ]
        )
    return _grid(["network, 7 classes", "parameters, M", "GMAC for 4 s (`vervet describe`)"], body)


def _references() -> str:
    published = [
        [title_of(corpus), *(f"{scores[key]:.2f}" for key in ("teacher", "student", "figure"))]
        for corpus, scores in PUBLISHED.items()
    ]
    return "\n\n".join(
        [
            f"What the paper reports (WA, leaky split): {PUBLISHED_SOURCE}. Its figures of\n"
            "confusion matrices give other scores than its tables.",
            _grid(["corpus", "teacher", "student", "confusion-matrix figure"], published),
            "What an honest result is compared with. None of these is a Vervet network.",
            _grid(
                ["corpus and split", "system", "parameters, M", "GMAC for 4 s", "UAR", "WA", "source"],
                REFERENCES,
            ),
        ]
    )
