"""Whom `vervet bench` times: each turns four seconds of speech into probabilities in its own way.

A contender loads what it needs for a number of threads and returns a function from paths and waveforms to an answer.
It imports its packages itself, so that each process carries one contender and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16_000  # Hz
SECONDS = 4.0
CLASSES = 7
LIMIT_SIZE = 768  # rows and columns of the matrices whose product is the limit

Recognise = Callable[[Sequence[Path], np.ndarray], Any]  # paths; waveforms (n, samples) float32 at RATE


@dataclass(frozen=True)
class Contender:
    """One way from speech to an emotion, or a part of ours."""

    title: str
    prepare: Callable[[int, Path], Recognise]  # threads, and the file named by `model`
    needs: tuple[str, ...] = ()  # packages beyond the base install
    model: str = ""  # of the files that the bench works with: given, int8, front_end
    batch: int = 16  # windows at a time where throughput is measured; 0 where it is not
    part: bool = False  # of our own way: no contender, but shows where the time goes


def _predictor(threads: int, model: Path) -> Recognise:
    import vervet

    predictor = vervet.load(model, threads=threads)
    return lambda paths, waveforms: predictor.probabilities(list(waveforms))


def _predictor_on_files(threads: int, model: Path) -> Recognise:
    import vervet

    predictor = vervet.load(model, threads=threads)
    return lambda paths, waveforms: [predictor(path) for path in paths]


def _stream(threads: int, model: Path) -> Recognise:
    """One hop of live audio: a second in, an answer for the last four out; without the speech gate."""
    import vervet
    from vervet.stream import Stream

    stream = Stream(vervet.load(model, threads=threads), RATE, gate_db=None)
    stream.feed(np.random.default_rng(0).uniform(-0.1, 0.1, round(SECONDS * RATE)).astype(np.float32))
    return lambda paths, waveforms: stream.feed(waveforms[0, :RATE])


def _front_end(threads: int, model: Path) -> Recognise:
    """Of the model only what makes the image."""
    session = _session(str(model), threads)
    return lambda paths, waveforms: session.run(None, {"waveform": waveforms})


def _session(model: str | bytes, threads: int) -> Any:
    """An ONNX Runtime session of a file or of its content."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _pytorch(threads: int, model: Path) -> Recognise:
    """Front end and network of the model as PyTorch modules, eager."""
    import torch

    from vervet.config import FrontEnd, merge
    from vervet.models.exported import read_exported
    from vervet.spectrogram import LogMel

    torch.set_num_threads(threads)
    name = str(model)
    network, card = read_exported(model.read_bytes(), name)
    front_end, network = LogMel(merge(FrontEnd(), card["front_end"], name)).eval(), network.eval()

    @torch.inference_mode()
    def recognise(paths: Sequence[Path], waveforms: np.ndarray) -> Any:
        return network(front_end(torch.from_numpy(waveforms)))[0].softmax(-1)

    return recognise


def _librosa_pytorch(threads: int, model: Path) -> Recognise:
    """What a reader of the paper would write first: librosa's log-Mel, interpolated, then its student in PyTorch."""
    import librosa
    import torch
    from torch.nn import functional as F

    from vervet.config import NETWORKS
    from vervet.models.vit import VisionTransformer

    torch.set_num_threads(threads)
    network = VisionTransformer(NETWORKS["student"], CLASSES).eval()

    @torch.inference_mode()
    def recognise(paths: Sequence[Path], waveforms: np.ndarray) -> Any:
        images = []
        for waveform in waveforms:
            mel = librosa.feature.melspectrogram(
                y=waveform, sr=RATE, n_fft=1024, win_length=512, hop_length=64, window="hamming", n_mels=128
            )
            images.append(librosa.power_to_db(mel, ref=np.max) / 80 + 1)
        frames = torch.from_numpy(np.stack(images))[:, None]  # (n, 1, 128, 1001)
        tokens = network.every_token(F.interpolate(frames, (128, 128), mode="bilinear"))
        return network.head(tokens[:, 0]).softmax(-1)

    return recognise


def _wav2vec2(threads: int, model: Path) -> Recognise:
    """What most would take instead: wav2vec2-base with a classification head; random weights do for time."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForSequenceClassification  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(threads)
    network = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(num_labels=CLASSES)).eval()

    @torch.inference_mode()
    def recognise(paths: Sequence[Path], waveforms: np.ndarray) -> Any:
        return network(torch.from_numpy(waveforms)).logits.softmax(-1)

    return recognise


def _egemaps_svm(threads: int, model: Path) -> Recognise:
    """The classic: openSMILE's 88 eGeMAPS functionals, then a support vector machine fitted to random features."""
    import opensmile  # pyright: ignore[reportMissingImports]
    from sklearn.svm import SVC  # pyright: ignore[reportMissingImports]

    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals
    )
    rng = np.random.default_rng(0)
    svm = SVC().fit(rng.standard_normal((500, 88)), rng.integers(CLASSES, size=500))

    def recognise(paths: Sequence[Path], waveforms: np.ndarray) -> Any:
        return svm.decision_function(np.concatenate([smile.process_signal(one, RATE).to_numpy() for one in waveforms]))

    return recognise


def _limit(threads: int, model: Path) -> Recognise:
    """Nothing but one large float32 matrix product, by the same library that runs the network."""
    import onnx
    from onnx import TensorProto, helper

    shape, real = [LIMIT_SIZE, LIMIT_SIZE], TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, real, shape) for name in "abc"]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "limit", ends[:2], ends[2:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    session = _session(proto.SerializeToString(), threads)
    rng = np.random.default_rng(0)
    inputs = {name: rng.random(shape, dtype=np.float32) for name in "ab"}
    return lambda paths, waveforms: session.run(None, inputs)


CONTENDERS = {
    "vervet": Contender("vervet", _predictor, model="given"),
    "vervet-int8": Contender("vervet, int8", _predictor, ("onnx", "onnxscript", "torch"), "int8"),
    "vervet-file": Contender("vervet, from file", _predictor_on_files, model="given", batch=0),
    "vervet-pytorch": Contender("vervet in PyTorch", _pytorch, ("onnx", "torch"), "given"),
    "librosa-pytorch": Contender("librosa + paper's student", _librosa_pytorch, ("librosa", "torch")),
    "wav2vec2": Contender("wav2vec2-base + head", _wav2vec2, ("transformers", "torch"), batch=4),
    "egemaps-svm": Contender("openSMILE eGeMAPS + SVM", _egemaps_svm, ("opensmile", "sklearn")),
    "stream": Contender("vervet, live, per second", _stream, model="given", batch=0, part=True),
    "front-end": Contender("front end", _front_end, ("onnx",), "front_end", 0, part=True),
    "limit": Contender("matrix product", _limit, ("onnx",), batch=0, part=True),
}
