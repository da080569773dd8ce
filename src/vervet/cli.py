"""The command line: parse, then call.

Each command imports what it needs when it runs, so that `vervet predict` starts without torch. Exit codes: 0 all well;
1 something in the input, or in what was asked of it, is at fault, and was named; 2 the command line cannot be parsed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vervet import __version__

if TYPE_CHECKING:
    from vervet.batch import Answer, Item, Speakers
    from vervet.config import Recipe
    from vervet.corpora.check import Report
    from vervet.evaluation.leakage import Audit
    from vervet.predict import Predictor


PROTOCOLS = ("paper", "clip", "sentence", "speaker", "speakers", "table")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process where not given.

    Returns
    -------
    int
        The exit code.
    """
    for name in ("stdout", "stderr"):  # whoever started this may have closed them
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    args, extra = _parser().parse_known_args(argv)
    if extra and not args.accepts_settings:
        args.parser.error(f"unrecognized arguments: {' '.join(extra)}")
    args.settings = extra
    args.words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output, `head` perhaps, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        if args.debug:
            raise
        print(f"vervet {args.command}: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if args.debug or error.name is None or error.name.startswith("vervet"):
            raise
        extras = {
            "matplotlib": "plot", "sounddevice": "mic", "pyarrow": "parquet", "ray": "cluster",
            "huggingface_hub": "hub", "audformat": "audformat",
        }  # fmt: skip
        extras |= dict.fromkeys(("fastapi", "uvicorn", "python_multipart", "prometheus_client", "websockets"), "serve")
        trains = args.command in ("train", "study", "finetune", "report", "inside", "export")
        extra_name = "train" if trains else extras.get(error.name, "train")
        print(
            f"vervet {args.command}: needs {error.name}, which is not installed: pip install 'vervet[{extra_name}]'",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        hint = "; the same command goes on from here" if args.resumes and args.out else ""
        print(f"vervet {args.command}: interrupted{hint}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vervet", description="Emotion in speech, small and honest.")
    parser.add_argument("--version", action="version", version=f"vervet {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run, help: str, settings: bool = False, resumes: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=run, parser=sub, accepts_settings=settings, resumes=resumes)
        return sub

    def formats(sub: argparse.ArgumentParser, *names: str) -> None:
        sub.add_argument("--format", choices=names, default=names[0], help=f"default: {names[0]}")

    sub = command("predict", _predict, "recognise the emotion in recordings", resumes=True)
    sub.add_argument("paths", nargs="+", metavar="PATH", help="file, folder, glob, or table with a 'file' column")
    sub.add_argument("--table", default=None, metavar="NAME", help="PATH is an audformat database: this table of it")
    sub.add_argument(
        "--model",
        default=None,
        help="run folder, .onnx file, or OWNER/MODEL of the Hugging Face Hub; default: the shipped model",
    )
    formats(sub, "table", "csv", "json", "jsonl")
    sub.add_argument("--window-s", type=float, default=None, help="seconds per window; default: the model's own, 4")
    sub.add_argument("--hop-s", type=float, default=None, help="seconds between windows; default: the window")
    sub.add_argument(
        "--speech-only", action="store_true", help="leave out windows in which nobody speaks, and not only silent ones"
    )
    sub.add_argument(
        "--channel",
        type=int,
        default=None,
        metavar="N",
        help="hear this one alone, 0 is the first; default: that of the table, else the mean",
    )
    sub.add_argument("--whole", action="store_true", help="one answer for each recording: the mean over its windows")
    sub.add_argument(
        "--speaker", default=None, metavar="COLUMN", help="get to know each speaker that it names first, from all clips"
    )
    sub.add_argument(
        "--out",
        type=Path,
        default=None,
        metavar="NAME",
        help=".csv, .jsonl, .parquet or .audformat; continues what it holds",
    )
    sub.add_argument("--retry", action="store_true", help="with --out: again what had no answer in earlier runs")
    sub.add_argument("--jobs", type=int, default=None, metavar="N", help="windows at a time; default: one per core")
    sub.add_argument(
        "--cluster", nargs="?", const="local", default=None, metavar="ADDRESS",
        help="on a Ray cluster (extra 'cluster'): auto or host:port; default: one that is started on this machine",
    )  # fmt: skip
    sub.add_argument("--picture", type=Path, default=None, help="also draw the run into this PNG (extra 'plot')")

    sub = command("listen", _listen, "recognise emotion as it is spoken, until the input ends or Ctrl-C")
    sub.add_argument("--stdin", action="store_true", help="raw PCM on standard input instead of the microphone")
    sub.add_argument("--rate", type=int, default=None, help="in Hz; default: 16000 of PCM, the microphone's own")
    sub.add_argument("--channels", type=int, default=1, help="mixed to their mean; default: 1")
    sub.add_argument("--pcm", default="s16le", help="s16le, s32le, f32le, mulaw or alaw; default: s16le")
    sub.add_argument("--device", default=None, help="microphone, by number or name; default: the system's")
    sub.add_argument("--model", default=None, help="as for predict; default: the shipped model")
    formats(sub, "text", "json")
    sub.add_argument("--window-s", type=float, default=None, help="seconds per window; default: the model's own, 4")
    sub.add_argument("--hop-s", type=float, default=1.0, help="seconds between answers; default: 1")
    sub.add_argument("--smoothing-s", type=float, default=1.0, help="half-life of past scores, 0: none; default: 1")
    sub.add_argument(
        "--threshold", type=float, default=None, help="less is 'uncertain', 0: nothing is; default: the model's own"
    )
    sub.add_argument("--gate-db", type=float, default=9.0, help="speech above the noise floor by this; default: 9")
    sub.add_argument("--no-gate", dest="gate_db", action="store_const", const=None, help="take all sound for speech")
    sub.add_argument(
        "--adapt", action="store_true", help="get to know the speaker, who is one and the same; for models that enrol"
    )

    sub = command("serve", _serve, "answer over HTTP and WebSocket, until Ctrl-C or SIGTERM (extra 'serve')")
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1, this machine alone")
    sub.add_argument("--port", type=int, default=8000, help="0: any that is free; default: 8000")
    sub.add_argument("--model", default=None, help="as for predict; default: the shipped model")
    sub.add_argument("--jobs", type=int, default=None, metavar="N", help="windows at a time; default: one per core")
    sub.add_argument("--max-bytes", type=int, default=None, help="of one body; default: 64000000")
    sub.add_argument("--max-duration-s", type=float, default=None, help="of one recording; default: 600")
    sub.add_argument("--max-waiting", type=int, default=None, help="requests at a time; default: 256")
    sub.add_argument("--max-streams", type=int, default=None, help="WebSockets at a time; default: 64")
    sub.add_argument(
        "--timeout-s", type=float, default=None, help="for a body to arrive, and again for its answer; default: 60"
    )
    sub.add_argument(
        "--allow-origin", action="append", default=[], metavar="ORIGIN", help="pages of this server may ask; *: all may"
    )
    sub.add_argument("--root-path", default="", metavar="PATH", help="where a proxy has put the server")
    sub.add_argument(
        "--grace-s", type=float, default=0.0, help="after SIGTERM, /readyz says 503 for this long first; default: 0"
    )

    sub = command(
        "train",
        _train,
        "train by the three stages of a recipe; --key=value overrides a setting",
        settings=True,
        resumes=True,
    )
    sub.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    sub.add_argument(
        "--corpus", required=True, help="emodb, savee, cremad, several such as cremad+emodb, table, or folders"
    )
    sub.add_argument("--root", type=Path, default=None, help="folder or table; default: $VERVET_CORPORA/NAME")
    sub.add_argument("--protocol", required=True, choices=(*PROTOCOLS, "all"))
    sub.add_argument("--fold", default="0", help="which fold is the test side: a number, several (0,2,5-7), or all")
    sub.add_argument("--jobs", type=int, default=1, help="how many of several folds to train at a time; default: 1")
    sub.add_argument("--teacher", type=Path, default=None, metavar="RUN", help="take over the teacher of another run")
    sub.add_argument("--init", default=None, metavar="MODEL", help="start the student from it: see finetune --model")
    sub.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder; continues what it holds")
    sub.add_argument("--no-export", action="store_true", help="write no ONNX file")
    sub.add_argument("--cache", type=Path, default=None, help="where images are cached; default: ~/.cache/vervet")
    sub.add_argument("--cpu", action="store_true", help="do not use a GPU")
    sub.add_argument("--compile", action="store_true", help="compile networks: worth it for long runs on a GPU")

    sub = command(
        "finetune",
        _finetune,
        "train a model on with clips of your own; --key=value overrides a setting",
        settings=True,
        resumes=True,
    )
    sub.add_argument(
        "data", type=Path, metavar="DATA", help="folder with a folder per emotion, or CSV: file,emotion,..."
    )
    sub.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder; continues what it holds")
    sub.add_argument("--model", default=None, help="run folder or .onnx file to start from; default: the shipped model")
    sub.add_argument("--protocol", default="auto", choices=("auto", *PROTOCOLS[1:]), help="of the estimate")
    sub.add_argument("--jobs", type=int, default=None, help="how many runs at a time; default: one per core")
    sub.add_argument("--cache", type=Path, default=None, help="where images are cached; default: ~/.cache/vervet")
    sub.add_argument("--cpu", action="store_true", help="do not use a GPU")

    sub = command("study", _study, "train every run of a study, a few at a time, and file the results", resumes=True)
    sub.add_argument("study", type=Path, metavar="STUDY.yaml")
    sub.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="FOLDER", help="of the run folders; default: runs"
    )
    sub.add_argument("--results", type=Path, default=Path("results/results.json"), help="default: results/results.json")
    sub.add_argument("--missing", action="store_true", help="train only what the results do not hold yet")
    sub.add_argument("--list", action="store_true", help="name the runs that are not finished, and train none")
    sub.add_argument("--jobs", type=int, default=1, help="how many runs at a time; default: 1")
    sub.add_argument("--cache", type=Path, default=None, help="where images are cached; default: ~/.cache/vervet")
    sub.add_argument("--cpu", action="store_true", help="do not use a GPU")
    sub.add_argument("--compile", action="store_true", help="compile networks: worth it for long runs on a GPU")

    sub = command(
        "evaluate", _evaluate, "the scores of finished runs on their test side, or of any model on other clips"
    )
    sub.add_argument(
        "run_folders", type=Path, nargs="+", metavar="RUN",
        help="several folds of one experiment are pooled; with --on, also any model, as for predict, such as default",
    )  # fmt: skip
    formats(sub, "table", "json")

    sub.add_argument(
        "--robustness", action="store_true", help="degrade the test recordings of a run or its folds instead"
    )
    sub.add_argument(
        "--validation", action="store_true", help="with --robustness: the validation recordings, to choose settings by"
    )
    sub.add_argument("--model", default=None, help="with --robustness: asked instead of the runs' own, as for predict")
    sub.add_argument(
        "--on", default=None, metavar="CORPUS",
        help="test on emodb, savee or cremad; or on your own: a CSV table, or a folder with a folder for each emotion",
    )  # fmt: skip
    sub.add_argument(
        "--root", type=Path, default=None, help="of the corpus, for --robustness and --on; default: $VERVET_CORPORA"
    )

    sub = command("audit", _audit, "what a split's test score can and cannot mean")
    sub.add_argument("split", type=Path, metavar="SPLIT.csv")
    formats(sub, "text", "json")

    sub = command("corpus", _corpus, "compare a corpus on disk with its published release")
    sub.add_argument("action", choices=("check",))
    sub.add_argument("name", help="emodb, savee, cremad, table, or folders")
    sub.add_argument("--root", type=Path, default=None, help="folder or table; default: $VERVET_CORPORA/NAME")
    formats(sub, "text", "json")

    sub = command("describe", _describe, "parameters and multiply-accumulates of a network, counted")
    sub.add_argument("network", choices=("student", "teacher", "teacher-large", "vervet"))
    sub.add_argument("--classes", type=int, required=True)
    formats(sub, "text", "json")

    sub = command("export", _export, "a run as one ONNX file that takes a waveform, or as a folder to publish")
    sub.add_argument("run_folder", type=Path, metavar="RUN")
    form = sub.add_mutually_exclusive_group(required=True)
    form.add_argument("--out", type=Path, metavar="FILE.onnx")
    form.add_argument("--hub", type=Path, metavar="FOLDER", help="for the Hugging Face Hub, with a card (extra 'hub')")
    sub.add_argument("--licence", default=None, metavar="ID", help="with --hub: of the weights; default: apache-2.0")
    weights = sub.add_mutually_exclusive_group()
    weights.add_argument("--float16", action="store_true", help="16-bit weights: little more than half of the file")
    weights.add_argument("--int8", action="store_true", help="8-bit weights: two fifths of the file, a little faster")

    sub = command("inside", _inside, "pictures of attention, positions, stem and the whole method in trained networks")
    sub.add_argument("networks", type=Path, nargs="+", metavar="RUN", help="run folders, or stages such as RUN/teacher")
    sub.add_argument("--clip", type=Path, required=True, metavar="FILE", help="the recording to look at")
    sub.add_argument("--out", type=Path, required=True, metavar="FOLDER")

    sub = command(
        "page", _page, "the page of 'vervet serve' as a folder for any web server; the model runs in the browser"
    )
    sub.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    sub.add_argument("--model", default=None, help="as for predict; default: the shipped model")
    sub.add_argument(
        "--runtime", type=Path, default=None, metavar="FOLDER",
        help="holds the files of onnxruntime-web, such as node_modules/onnxruntime-web/dist; default: fetched with npm",
    )  # fmt: skip

    sub = command("bench", _bench, "time Vervet beside its alternatives on this machine, in turn")
    sub.add_argument("contenders", nargs="*", metavar="CONTENDER", help="default: all whose packages are installed")
    sub.add_argument("--clips", type=Path, default=Path("examples"), help="folder of recordings; default: examples")
    sub.add_argument("--model", default=None, help="as for predict; default: the shipped model")
    sub.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="a pass for each; default: 1 2")
    sub.add_argument("--rounds", type=int, default=100, help="how often each is asked; default: 100")
    formats(sub, "table", "json")

    sub = command("report", _report, "one HTML file about a run or all its folds; or the page of results.json")
    sub.add_argument(
        "paths", type=Path, nargs="*", default=[Path("results/results.json")], metavar="RUN",
        help="run folders of one experiment or the folder of its folds; or the JSON file of results, the default",
    )  # fmt: skip
    sub.add_argument(
        "--add", type=Path, nargs="+", default=[], metavar="RUN",
        help="with a JSON file: run folders to file in it first; folds are pooled",
    )  # fmt: skip
    sub.add_argument("--out", type=Path, default=None, metavar="FILE.html", help="default: RUN/report.html")
    sub.add_argument("--root", type=Path, default=None, help="of the corpus, for players; default: $VERVET_CORPORA")
    sub.add_argument(
        "--audio", action=argparse.BooleanOptionalAction, default=None,
        help="put recordings into the file; default: only where the licence of the corpus allows it",
    )  # fmt: skip
    return parser


def _describe(args: argparse.Namespace) -> int:
    from vervet.evaluation.complexity import describe, summary

    described = describe(args.network, args.classes)
    print(json.dumps(described) if args.format == "json" else summary(described))
    return 0


def _page(args: argparse.Namespace) -> int:
    from vervet.serve.static import write_page

    size = write_page(args.out, args.model, args.runtime)
    print(f"{args.out}: {size / 1e6:.1f} MB; try it with 'python -m http.server --directory {args.out}'")
    return 0


def _bench(args: argparse.Namespace) -> int:
    from vervet.bench.run import bench, summary

    measured = bench(args.clips, args.model, args.contenders, args.threads, args.rounds)
    print(json.dumps(measured, indent=1) if args.format == "json" else summary(measured))
    return 0


def _report(args: argparse.Namespace) -> int:
    if any(path.is_dir() for path in args.paths):
        return _report_html(args)
    from vervet.evaluation.records import add
    from vervet.evaluation.report import write

    if len(args.paths) > 1 or args.out or args.root or args.audio is not None:
        raise ValueError(f"{args.paths[0]}: no run folder; --out, --root and --audio are for reports on runs")
    if args.add:
        from vervet.evaluation.run import elsewhere, evaluate

        add(args.paths[0], evaluate(args.add) + elsewhere(args.add))
    print(write(args.paths[0]))
    return 0


def _report_html(args: argparse.Namespace) -> int:
    from vervet.evaluation.html import write_html

    if args.add:
        raise ValueError("--add files runs in a JSON file of results: name that file instead of run folders")
    print(write_html(args.paths, args.out, args.root, args.audio))
    return 0


def _corpus(args: argparse.Namespace) -> int:
    from vervet.corpora.check import check

    report = check(args.name, args.root)
    _say(args, report)
    return 0 if report.ok else 1


def _audit(args: argparse.Namespace) -> int:
    from vervet.evaluation.leakage import audit, read_split

    _say(args, audit(read_split(args.split), args.split.parent))
    return 0


def _say(args: argparse.Namespace, found: Report | Audit) -> None:
    """Print what a check has found, in the form asked for."""
    from vervet.terminal import printable

    text = json.dumps(found.to_json(), indent=2) if args.format == "json" else found.to_text()
    print(printable(text, sys.stdout.encoding))


def _train(args: argparse.Namespace) -> int:
    from vervet.config import load_recipe, recipe_name
    from vervet.evaluation.run import present, summary
    from vervet.training.run import train
    from vervet.training.stages import is_done

    recipe = load_recipe(args.recipe, args.settings)
    if not args.fold.isdecimal():
        return _train_folds(args, recipe)
    cache = args.cache or _own_cache()
    command = ["vervet", *args.words]
    name, fold = recipe_name(args.recipe, args.settings, is_done(args.out / "matching")), int(args.fold)
    run = train(
        recipe, args.corpus, args.root, args.protocol, fold, args.out, cache, name, command, args.cpu, args.teacher,
        args.init, args.compile,
    )  # fmt: skip
    if int(os.environ.get("RANK", "0")) == 0:  # of several processes the first
        if not args.no_export:
            from vervet.export import export

            print(export(run, run / "model.onnx"), file=sys.stderr)
        if args.protocol != "all":  # which tests nothing
            print(summary(present(run)))
    return 0


def _own_cache() -> Path:
    try:
        return Path.home() / ".cache" / "vervet"
    except RuntimeError:
        raise ValueError("there is no home folder to keep images in; name a folder with --cache") from None


def _train_folds(args: argparse.Namespace, recipe: Recipe) -> int:
    from vervet.corpora import load_corpus
    from vervet.corpora.check import clean
    from vervet.evaluation.run import evaluate, summary
    from vervet.training.pretrained import load_base, start_from
    from vervet.training.study import Job, check_finished, folds_of, run_jobs

    if args.init:
        recipe = start_from(recipe, load_base(args.init))
    if args.teacher:
        raise ValueError("--teacher belongs to one fold; several need a study, see docs/training.md")
    folds = folds_of(args.fold, recipe, args.corpus, args.root, args.protocol)
    what = (args.recipe, recipe, args.corpus, args.protocol)
    more = {"settings": tuple(args.settings), "init": args.init or ""}
    jobs = [Job(*what, fold, args.out / f"fold-{fold}", **more) for fold in folds]
    check_finished(jobs, lambda: clean(load_corpus(args.corpus, args.root), recipe.silent, recipe.contradictory)[0])
    folders = run_jobs(jobs, args.jobs, _passed_on(args, "root", "cache", "cpu", "compile", "no_export"))
    if args.protocol != "all":  # which tests nothing
        print(summary(evaluate(folders)))
    return 0


def _finetune(args: argparse.Namespace) -> int:
    from vervet.evaluation.run import summary
    from vervet.training.finetune import finetune, told

    more = _passed_on(args, "cache", "cpu")
    records = finetune(args.data, args.out, args.model, args.protocol, args.settings, args.jobs, more)
    print(f"{summary(records)}\n\n{told(records, args.out)}")
    return 0


def _study(args: argparse.Namespace) -> int:
    from vervet.evaluation.records import add, load
    from vervet.evaluation.report import write
    from vervet.evaluation.run import elsewhere, evaluate
    from vervet.training.study import read_study, run_jobs, unfiled, with_lenders

    wanted = jobs = read_study(args.study, args.out)
    if args.missing and args.results.exists():
        wanted = unfiled(jobs, load(args.results))
        jobs = with_lenders(wanted, jobs)
        if not wanted:
            print(f"vervet study: {args.results} holds every run of {args.study}", file=sys.stderr)
    if args.list:
        for job in jobs:
            if not job.finished:
                print(job.folder)
        return 0
    try:
        run_jobs(jobs, args.jobs, _passed_on(args, "cache", "cpu", "compile"))
    finally:  # what is finished is filed even where a run failed or the study was interrupted
        finished = [job.folder for job in wanted if job.finished and job.tests]
        if finished:
            add(args.results, evaluate(finished) + elsewhere(finished))
            print(write(args.results))
    return 0


def _passed_on(args: argparse.Namespace, *names: str) -> list[str]:
    """Options of this command as words for the runs that it starts."""
    words = []
    for name in names:
        value, option = getattr(args, name), f"--{name.replace('_', '-')}"
        words += [option] if value is True else [option, str(value)] if value else []
    return words


def _evaluate(args: argparse.Namespace) -> int:
    from vervet.evaluation.run import evaluate, summary, to_json

    if args.robustness:
        return _robustness(args)
    if args.validation or args.model:
        raise ValueError(f"--{'validation' if args.validation else 'model'} goes with --robustness")
    if args.on:
        from vervet.evaluation.cross import cross

        records = [cross(str(folder), args.on, args.root) for folder in args.run_folders]
    elif not (records := evaluate(args.run_folders)):
        raise ValueError(f"{args.run_folders[0]}: trained on all clips, so there is no test side; --on takes others")
    if args.format == "json":
        print(to_json(records))
    elif args.on and len(records) > 1:
        told = zip(args.run_folders, records, strict=True)
        print("\n\n".join(f"{model}\n{summary([record])}" for model, record in told))
    else:
        print(summary(records))
    return 0


def _robustness(args: argparse.Namespace) -> int:
    from vervet.evaluation.robustness import measure_robustness, summary

    rows, picture = measure_robustness(args.run_folders, args.root, args.validation, args.model)
    print(json.dumps(rows, indent=1) if args.format == "json" else f"{summary(rows)}\nThe picture: {picture}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from vervet.export import export

    if args.hub:
        from vervet.publish import publish

        if args.int8 or args.float16:
            raise ValueError("--float16 and --int8 go with --out: the card's scores are those of the whole weights")
        print(publish(args.run_folder, args.hub, args.licence))
        return 0
    if args.licence:
        raise ValueError("--licence goes with --hub")
    print(export(args.run_folder, args.out, "int8" if args.int8 else "float16" if args.float16 else "float32"))
    return 0


def _inside(args: argparse.Namespace) -> int:
    from vervet.evaluation.inside import draw_inside

    for path in draw_inside(args.networks, args.clip, args.out):
        print(path)
    return 0


def _predict(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from vervet import batch, output, predict
    from vervet.terminal import for_programs, printable

    if args.out:
        return _predict_into(args)
    if args.retry:
        raise ValueError("--retry continues what an earlier run wrote: name it with --out")
    if args.picture and args.speaker:
        raise ValueError("--picture draws what the network sees of strangers: leave out --speaker")
    if args.picture and args.whole:
        raise ValueError("--picture draws windows: leave out --whole")
    # A missing matplotlib should be known before the work, not after.
    picture = importlib.import_module("vervet.picture") if args.picture else None
    if picture:
        picture.check(args.picture)
    predictor = predict.load(args.model, threads=1)
    speakers = _met(args, predictor)
    kept: list[Answer] = []
    faulty = False
    counted: list[Item] = []  # as right or wrong

    def keep(answer: Answer) -> Answer:
        nonlocal faulty
        faulty = faulty or bool(answer.problem)
        if args.format == "table" and answer.predictions and answer.item.truth(predictor.labels) in predictor.labels:
            counted.append(answer.item)
        if picture:
            kept.append(answer)
        return answer

    if args.format != "table":
        for_programs(sys.stdout)
    with closing(_answers(args, predictor, speakers, batch.find(args.paths, args.table, args.channel))) as answers:
        for line in output.FORMATS[args.format](
            map(keep, answers), predictor.labels, batch.columns(args.paths, args.table)
        ):
            shown = printable(line, sys.stdout.encoding) if args.format == "table" else line
            tqdm.write(shown)  # a progress bar makes way for it
            sys.stdout.flush()
    if known := _heard(predictor, counted):
        told = f"the model was trained on {known} of these recordings, or on other clips of their speakers"
        print(f"vervet predict: {told}; how often it is right on them tells nothing of others", file=sys.stderr)
    if picture and any(answer.predictions for answer in kept):
        picture.draw(predictor, kept, args.picture)
    return int(faulty)


def _heard(predictor: Predictor, items: Sequence[Item]) -> int:
    """How many recordings the model knows from training."""
    if not items:
        return 0
    from vervet.corpora import Utterance
    from vervet.evaluation.leakage import count_heard

    return count_heard(predictor.card, [Utterance(item.sound, "", "table") for item in items])


def _predict_into(args: argparse.Namespace) -> int:
    from vervet import batch, predict, store

    if args.format != "table" or args.picture:
        raise ValueError("--out takes its form from its name and draws nothing: leave out --format and --picture")
    args.paths = batch.apart_from(args.paths, args.out)
    predictor = predict.load(args.model, threads=1)
    speakers = _met(args, predictor)  # what speaks against that should be known before an output is begun
    columns = batch.columns(args.paths, args.table)
    asked = {"whole": args.whole, "channel": args.channel, "speech_only": args.speech_only}
    asked |= {"speaker": speakers.column, "met": speakers.digest} if speakers else {}
    with store.opened(args.out, predictor, args.window_s, args.hop_s, columns, args.retry, asked) as out:
        if out.met_others:
            print(
                f"{args.out}: was begun when speakers were known from other recordings; what it holds stays as it is; "
                "another --out answers all of them alike",
                file=sys.stderr,
            )
        lacking = filter(out.lacks, batch.find(args.paths, args.table, args.channel))
        with closing(_answers(args, predictor, speakers, lacking, out.there)) as answers:
            for answer in answers:
                out.add(answer)
    if out.problems:
        print(f"{args.out}: not all is answered, {len(out.problems)} problems are in {args.out}.problems.csv")
    return 1 if out.problems else 0


def _met(args: argparse.Namespace, predictor: Predictor) -> Speakers | None:
    """Get to know the speakers, if they are named."""
    from vervet import batch
    from vervet.machine import cores

    if not args.speaker:
        return None
    if args.cluster:
        raise ValueError("--speaker works on this machine alone: leave out --cluster")
    every = batch.find(args.paths, args.table, args.channel)
    return batch.meet(predictor, every, args.speaker, cores() if args.jobs is None else args.jobs, args.speech_only)


def _answers(
    args: argparse.Namespace, predictor: Predictor, speakers: Speakers | None, items: Iterable[Item], there: int = 0
) -> Generator[Answer, None, None]:
    """Answer items here or on a cluster, naming problems as they come; a progress bar counts, also what was there."""
    from tqdm import tqdm

    from vervet import batch
    from vervet.machine import cores
    from vervet.terminal import one_line, printable

    asked = {"window_s": args.window_s, "hop_s": args.hop_s, "speech_only": args.speech_only}
    if args.cluster:
        if Path(args.cluster).exists():
            raise ValueError(f"--cluster {args.cluster}: is a path, not the address of a cluster; write --cluster last")
        from vervet import cluster

        answers = cluster.predict_many(args.model, items, args.cluster, jobs=args.jobs, **asked)
    else:
        jobs = cores() if args.jobs is None else args.jobs
        answers = batch.predict_many(predictor, items, jobs=jobs, **asked, speakers=speakers)
    total = sum(1 for _ in batch.find(args.paths, args.table, args.channel)) if sys.stderr.isatty() else 0
    bar = tqdm(total=total, initial=there, unit="file", leave=False, disable=total < 2)
    told = args.model is not None  # of the model for telephones; asked once, of the first recording
    with closing(answers), bar:
        for answer in answers:
            bar.update()
            if not told and answer.predictions:
                told = True
                if batch.lacks_bands(predictor, answer.item):
                    line = one_line(f"{answer.item.path}: sampled as telephones do; --model telephone is for these")
                    tqdm.write(printable(f"vervet predict: {line}", sys.stderr.encoding), file=sys.stderr)
            if answer.problem:
                line = one_line(f"vervet predict: {answer.problem}")
                tqdm.write(printable(line, sys.stderr.encoding), file=sys.stderr)
            if args.whole and answer.predictions:
                answer = replace(answer, predictions=[predictor.whole(answer.predictions)])
            yield answer


def _listen(args: argparse.Namespace) -> int:
    from vervet import batch, predict, stream

    predictor = predict.load(args.model)
    if args.stdin:
        if sys.stdin is None:
            raise ValueError("--stdin: standard input is closed; give it audio, such as `ffmpeg ... - |`")
        rate, chunks = 16_000 if args.rate is None else args.rate, stream.pcm_chunks(sys.stdin.buffer)
    else:
        rate, chunks = stream.microphone(args.device, args.rate, args.channels)
        print("vervet listen: the microphone is open; Ctrl-C ends it", file=sys.stderr)
    names = ("channels", "pcm", "window_s", "hop_s", "smoothing_s", "threshold", "gate_db", "adapt")
    if args.model is None and batch.too_slow(predictor, rate):
        print("vervet listen: sampled as telephones do; --model telephone is for these", file=sys.stderr)
    listener = stream.Stream(predictor, rate, **{name: getattr(args, name) for name in names})
    with suppress(KeyboardInterrupt):  # how one stops listening
        stream.show(listener.listen(chunks), args.format, sys.stdout)
    return 0


def _serve(args: argparse.Namespace) -> int:
    from vervet import predict
    from vervet.machine import cores
    from vervet.serve.limits import limits_of
    from vervet.serve.server import serve

    names = ("max_bytes", "max_duration_s", "max_waiting", "max_streams", "timeout_s")
    serve(
        predict.load(args.model, threads=1),
        args.host,
        args.port,
        jobs=cores() if args.jobs is None else args.jobs,
        limits=limits_of({name: getattr(args, name) for name in names}),
        origins=args.allow_origin,
        root_path=args.root_path,
        grace_s=args.grace_s,
    )
    return 0
