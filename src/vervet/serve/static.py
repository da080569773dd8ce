"""The page as a static folder: the model runs in the browser, by ONNX Runtime Web, and the recording stays there."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from importlib import resources
from pathlib import Path

from vervet import __version__
from vervet.predict import find_model, open_model

RUNTIME = "onnxruntime-web@1.30.0"
# Of the files of the package, the smallest that run a model on the CPU, and what they are called here: not every web
# host knows that `.mjs` is JavaScript, and one that does not is not believed by browsers.
RUNTIME_FILES = {"ort.wasm.bundle.min.mjs": "ort.js", "ort-wasm-simd-threaded.wasm": "ort.wasm"}
PAGE = resources.files("vervet.serve") / "page"
ENGINE = 'data-engine="{}"'


def write_page(out: Path, model: str | Path | None = None, runtime: Path | None = None) -> int:
    """Write the page, a model and the runtime into a folder that any web server can offer.

    Parameters
    ----------
    out : pathlib.Path
        The folder; made, and written whole or not at all. An empty one may be there.
    model : str or pathlib.Path, optional
        As for `vervet.load`.
    runtime : pathlib.Path, optional
        A folder that holds the files of onnxruntime-web, such as `node_modules/onnxruntime-web/dist`. Where not given,
        the package is fetched with npm.

    Returns
    -------
    int
        Size of the folder in bytes.

    Raises
    ------
    ValueError
        If there is no such model, the folder holds something, or the runtime is not to be had.
    """
    out = out.resolve()  # an empty folder may be named as `.`, or by a link
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: is there already; remove it, or choose another folder")
    name, content = find_model(model)
    predictor = open_model(name, content)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        made = Path(folder) / "page"
        with resources.as_file(PAGE) as page:
            shutil.copytree(page, made)
        (made / "engine-server.js").unlink()
        index = (made / "index.html").read_text("utf-8").replace(ENGINE.format("server"), ENGINE.format("local"))
        (made / "index.html").write_text(index, "utf-8")
        (made / "model.onnx").write_bytes(content)
        card = predictor.card | {"digest": predictor.digest, "version": __version__}
        (made / "model.json").write_text(json.dumps(card, indent=1), "utf-8")
        (made / "onnxruntime").mkdir()
        if runtime is None:
            _fetch(made / "onnxruntime", Path(folder))
        else:
            _copy(runtime, made / "onnxruntime")
        (made / "onnxruntime" / "LICENSE").write_text(LICENCE, "utf-8")
        if out.exists():
            out.rmdir()
        made.rename(out)
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _fetch(target: Path, folder: Path) -> None:
    """Get the runtime from the registry that npm is set to; npm compares what comes with the registry's checksum."""
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            f"npm is not installed, which fetches {RUNTIME}; install Node.js, "
            "or give --runtime a folder that holds its files, such as node_modules/onnxruntime-web/dist"
        )
    command = [npm, "pack", RUNTIME, "--pack-destination", str(folder), "--prefer-offline", "--silent"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    packed = next(folder.glob("*.tgz"), None)
    if done.returncode or packed is None:
        why = (done.stderr.strip() or done.stdout.strip() or "without a word").splitlines()[-1]
        raise ValueError(f"npm could not fetch {RUNTIME} ({why}); see whether you are online, or give --runtime")
    with tarfile.open(packed) as archive:
        for name, ours in RUNTIME_FILES.items():
            source = archive.extractfile(f"package/dist/{name}")
            assert source is not None
            with source, open(target / ours, "wb") as file:
                shutil.copyfileobj(source, file)


def _copy(runtime: Path, target: Path) -> None:
    for name, ours in RUNTIME_FILES.items():
        if not (runtime / name).is_file():
            raise ValueError(f"{runtime}: holds no {name}; give the folder 'dist' of {RUNTIME}")
        shutil.copyfile(runtime / name, target / ours)


# The package declares its licence in a field and brings no file of it.
LICENCE = """\
ONNX Runtime Web, https://github.com/microsoft/onnxruntime

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
