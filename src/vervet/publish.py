"""A finished run as a folder for the Hugging Face Hub: weights, configuration, ONNX model and a card with scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from vervet.corpora import OWN, PUBLISHED, Release, release_of, title_of
from vervet.evaluation.run import evaluate
from vervet.export import export
from vervet.files import read_json, write_json, write_whole
from vervet.models.checkpoint import load_network, save, to_hub

METHOD = (
    "J.-Y. Kim, S.-H. Lee: *Accuracy Enhancement Method for Speech Emotion Recognition From Spectrogram Using Temporal "
    "Frequency Correlation and Positional Information Learning Through Knowledge Transfer.* IEEE Access, 2024. "
    "[doi:10.1109/ACCESS.2024.3447770](https://doi.org/10.1109/ACCESS.2024.3447770)"
)


# Of a record, the Hub's name for it, and ours.
MEASURES = (("uar", "recall", "UAR"), ("wa", "accuracy", "WA"), ("macro_f1", "f1", "macro F1"))
TESTED = {
    "paper": "altered copies of clips, of which nearly every one has another copy among those it was trained on",
    "clip": "new clips of voices that it was trained on",
    "sentence": "sentences that it was not trained on, spoken by voices that it was",
    "speaker": "voices that it was not trained on",
    "speakers": "voices that it was not trained on",
    "table": "the clips that the table of its corpus marks as test",
}


def publish(run: Path, out: Path, licence: str | None = None) -> Path:
    """Write what a repository of the Hugging Face Hub needs; nothing is uploaded.

    Parameters
    ----------
    run : Path
        A finished run folder, or that of a fine-tuning.
    out : Path
        The folder: `model.safetensors` and `config.json` for `vervet.models.checkpoint.load_network`, `model.onnx` for
        `vervet.load`, `recipe.yaml` with every setting, and the model card `README.md`. It is made where it is not
        there; files of these names are replaced.
    licence : str, optional
        Of the weights, as the Hub names it; apache-2.0 where not given. Of a corpus of the user's own Vervet does not
        know the terms, so it must be given.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ValueError
        If the run is not finished, the licence of the weights is not known, a corpus forbids to publish them, or the
        folder is that of a run.
    """
    if found := next((name for name in ("run.json", "finetune.json", "model.json") if (out / name).exists()), None):
        raise ValueError(f"{out}: holds a run ({found}), whose files would be replaced; give a folder of its own")
    record = _measured(run)
    network, card = load_network(run)
    licence = _licence(card["corpora"], licence)
    out.mkdir(parents=True, exist_ok=True)
    save(out / "model.safetensors", network.state_dict(), {"card": "config.json"})
    write_json(out / "config.json", to_hub(card | {"leaky": record["leaky"]}))
    export(out, out / "model.onnx")  # from what was just written: its card says leaky where the audit does
    write_whole(out / "recipe.yaml", (run / "recipe.yaml").read_bytes())
    parameters = sum(tensor.numel() for tensor in network.parameters())
    started = (card.get("base") or {}).get("corpora", [])
    text = model_card(record, card["corpora"], parameters, licence, out.resolve().name, {*started} & {*OWN} != set())
    write_whole(out / "README.md", text)
    return out


def _measured(run: Path) -> dict[str, Any]:
    """The record that the card tells of: that of the run's test, or the estimate of a fine-tuning, from its folds."""
    if (run / "metrics.json").exists() and not (run / "run.json").exists():
        record = read_json(run / "metrics.json")[-1]
        return record | {"uncertain_below": read_json(run / "model.json").get("uncertain_below", 0.0)}
    if records := evaluate([run]):
        return records[-1]
    told = "trained on all clips, so there is no score that its card could have"
    raise ValueError(f"{run}: {told}; of a fine-tuning, give the folder that has it and the folds")


def _licence(corpora: Sequence[str], given: str | None) -> str:
    if bound := [release for release in _releases(corpora) if not release.shared]:
        others = [title_of(name) for name in PUBLISHED if release_of(name).shared]
        raise ValueError(
            f"{bound[0].title} is {bound[0].terms}, so weights that learnt from it are not published; keep them to "
            f"yourself, or train on {' or '.join(others)}"
        )
    unknown = [corpus for corpus in corpora if corpus not in PUBLISHED]
    if unknown and not given:
        raise ValueError(
            f"Vervet does not know the terms of corpus {', '.join(unknown)}; if they allow to publish weights, say "
            "under which licence, such as --licence apache-2.0"
        )
    return given or "apache-2.0"


def model_card(
    record: dict[str, Any], corpora: Sequence[str], parameters: int, licence: str, name: str, unsure: bool = False
) -> str:
    """Write the card of a model.

    Parameters
    ----------
    record : dict
        Of its test, as `vervet.evaluation.run.evaluate` gives it. With fold "all" it is an estimate, of the models of
        all folds, and the one to be published was trained on all clips; `uncertain_below` is its threshold.
    corpora : sequence of str
        That it learnt from.
    parameters : int
        Of the network.
    licence : str
        Of the weights.
    name : str
        Of the model, without its owner.
    unsure : bool, optional
        Whether it started from a model that may have heard the test clips.

    Returns
    -------
    str
        Markdown with YAML in front. Scores of a leaky split stand in the text, and not in the YAML: what lists models
        by their scores would show them without saying so.
    """
    titles = _titles(corpora)
    sections = (
        f"---\n{_metadata(record, corpora, licence, name).to_yaml()}\n---\n",
        _test(record, titles, unsure),
        _network(record, parameters, name, titles),
        _scores(record),
        _limits(record, corpora),
        _terms(record, corpora, licence),
    )
    return "\n".join(sections)


def _releases(corpora: Sequence[str]) -> list[Release]:
    return [release_of(corpus) for corpus in corpora if corpus in PUBLISHED]


def _titles(corpora: Sequence[str]) -> str:
    own = {"table": "a table of recordings", "folders": "folders of recordings"}
    titles = [own.get(corpus) or title_of(corpus) for corpus in corpora]
    return " and ".join([", ".join(titles[:-1]), titles[-1]] if titles[1:] else titles)


def _metadata(record: dict[str, Any], corpora: Sequence[str], licence: str, name: str) -> ModelCardData:
    tested = _titles(record["corpus"].split("+"))
    results = [
        EvalResult(
            "audio-classification", record["corpus"], f"{tested}, protocol {record['protocol']}", metric,
            round(record[key], 4), task_name="Speech emotion recognition", dataset_split="test", metric_name=title,
        )
        for key, metric, title in MEASURES
    ]  # fmt: skip
    languages = list(dict.fromkeys(release.language for release in _releases(corpora)))
    leaky = record["leaky"]
    return ModelCardData(
        license=licence,
        language=languages or None,
        library_name="vervet",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", "vision-transformer", "onnx", *["leaky-test"] * leaky],
        metrics=[metric for _, metric, _ in MEASURES],
        model_name=None if leaky else name,
        eval_results=None if leaky else results,
    )


def _test(record: dict[str, Any], titles: str, unsure: bool) -> str:
    """Say what the scores are of, before anything else."""
    network = "teacher" if record["network"] == "teacher" else "student"
    verdict = (
        "**The test is leaky.** Its scores say how well the network knows clips again, and next to nothing about a "
        "voice that it has not heard. They are not to be compared with scores on unheard speakers."
        if record["leaky"]
        else "The test is not leaky: no version of a test clip was among those that {} was trained on."
    )
    protocol, guessing = record["protocol"], 100 / len(record["labels"])
    if record["fold"] == "all":
        tested = (
            f"Trained on all clips, so that none is left to test it on. The scores are an estimate: of "
            f"{len(record['folds'])} models that were trained like it, each without a part of the clips and tested on "
            f"that part; each time {TESTED[protocol]} (protocol `{protocol}`, {record['n_test']} items in all)."
        )
        verdict = verdict.format("its model")
    else:
        where = f"(protocol `{protocol}`, fold {record['fold']})"
        tested, verdict = f"Tested on {record['n_test']} items: {TESTED[protocol]} {where}.", verdict.format("it")
    if unsure and not record["leaky"]:
        verdict = "It started from a model of other recordings; whether that has heard test clips is not known."
    return f"""# Emotion in speech: a Vervet {network}, trained on {titles}

> {tested}
> {verdict}
>
> UAR {_per_cent(record, "uar")}, WA {_per_cent(record, "wa")}. Guessing has a UAR of {guessing:.1f} %.
"""


def _per_cent(record: dict[str, Any], measure: str) -> str:
    bounds = record.get(f"{measure}_interval")
    over = record.get("interval_over", "speakers")
    between = f" (95 % interval over {over}: {100 * bounds[0]:.1f} to {100 * bounds[1]:.1f})" if bounds else ""
    return f"{100 * record[measure]:.1f} %{between}"


def _network(record: dict[str, Any], parameters: int, name: str, titles: str) -> str:
    labels = record["labels"]
    return f"""## What it is

A vision transformer of {parameters:,} parameters. It reads the log-Mel picture of a sound and gives a probability to
each of {len(labels)} emotions: {", ".join(labels)}.
It was trained with Vervet on {titles}, after Kim & Lee (IEEE Access 2024), recipe `{record["recipe"]}`.

## Use

```sh
pip install 'vervet[hub]'
vervet predict talk.wav --model OWNER/{name}
```

```python
import vervet

predictor = vervet.load("OWNER/{name}")  # downloads model.onnx alone; PyTorch is not needed
for prediction in predictor("talk.wav"):
    print(prediction.start_s, prediction.end_s, prediction.ranked())
```

`model.safetensors` and `config.json` are the same network for PyTorch: `vervet.models.checkpoint.load_network(FOLDER)`.
"""


def _scores(record: dict[str, Any]) -> str:
    labels, confusion = record["labels"], record["confusion"]
    measures = "\n".join(f"| {title} | {_per_cent(record, key)} |" for key, _, title in MEASURES)
    counts = "\n".join(
        f"| {label} | {' | '.join(map(str, row))} |" for label, row in zip(labels, confusion, strict=True)
    )
    speakers = len(record["by_speaker"])
    few = {0: "", 1: " by one speaker, so that luck has a large part in it"}
    voices = few.get(speakers, f" by {speakers} speakers")
    runs = f"{len(record['folds'])} folds" if record["fold"] == "all" else "one run"
    return f"""## Scores

On {record["n_test"]} test items{voices}; {runs}, seed {record["seed"]}.
UAR is the mean of the recalls of all emotions, WA the share of items that are right.

| measure | value |
|---|---|
{measures}

{_confidence(record)}

Rows are true emotions, columns what was recognised.

| | {" | ".join(labels)} |
|---|{"---|" * len(labels)}
{counts}
"""


def _confidence(record: dict[str, Any]) -> str:
    """Say what its probabilities are worth."""
    found = record.get("calibration")
    if record["fold"] == "all":
        below = record["uncertain_below"]
        marked = f"Answers less sure than {below:.2f} are marked" if below else "No answer is marked"
        error = f" Theirs have a calibration error of {found['ece']:.3f} on the test items." if found else ""
        return (
            "Its probabilities were calibrated on what the models of the folds answered about clips that they had not "
            f"heard.{error} {marked} as uncertain."
        )
    if not found:
        return "Its probabilities are not calibrated: they say how sure it is, not how often it is right."
    right = "" if found["wa_answered"] is None else f", of which {100 * found['wa_answered']:.1f} % are right"
    uncertain = (
        f"Answers less sure than {found['uncertain_below']:.2f} are marked as uncertain. That leaves "
        f"{100 * found['answered']:.1f} % of the test items{right}."
        if found["uncertain_below"]
        else "No answer is marked as uncertain: on the validation clips, that would have cost more than it saves."
    )
    error = f"on the test items their calibration error is {found['ece']:.3f}"
    return f"Its probabilities were calibrated on validation clips; {error}. {uncertain}"


def _limits(record: dict[str, Any], corpora: Sequence[str]) -> str:
    known = _releases(corpora)
    heard = "".join(f"- It learnt from {source.title}: {source.speech}.\n" for source in known)
    return f"""## Intended use and limits

For research, teaching, and tools that people run on their own voice.

{heard}- It was tested on {_titles(record["corpus"].split("+"))}, and on nothing else.
- Expect it to do worse on other speech: spontaneous, in other languages, of children, over the telephone, in
  noise. Measure before you rely on it.
- It picks one of {len(record["labels"])} emotions for whatever it hears, also for a cough, music or a mixed feeling.
- On other speech its probabilities may be further from how often it is right than on the test items.
- It hears how something was said, and cannot know what a person feels.

Do not use it to judge people: not in hiring, at work, at school, in insurance, lending, policing or diagnosis, and not
to detect lies. In the European Union, inferring emotions at work and in education is prohibited, except for medical or
safety reasons (Regulation (EU) 2024/1689, Article 5(1)(f)).
"""


def _terms(record: dict[str, Any], corpora: Sequence[str], licence: str) -> str:
    known = _releases(corpora)
    terms = [f"{source.title} is {source.terms}." for source in known]
    if len(known) < len(corpora):
        terms.append("Whoever published it answers for the terms of the corpus that it learnt from.")
    origin = ", ".join(
        f"{key} `{record[key]}`" for key in ("recipe", "protocol", "fold", "seed", "split_hash", "commit")
    )
    return f"""## Licence, origin, citation

The weights are under the licence `{licence}`. {" ".join(terms)}

The run: {origin}. Every setting is in `recipe.yaml`.

{_quoted([METHOD, *(source.citation for source in known)])}
"""


def _quoted(paragraphs: Sequence[str]) -> str:
    return "\n>\n".join(f"> {paragraph}" for paragraph in paragraphs)
