"""A trained network as one ONNX file: a waveform in, logits out, and all that a user must know in its metadata."""

import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime import quantization
from onnxscript import optimizer
from torch import Tensor, nn

from vervet.config import FrontEnd, merge
from vervet.models.checkpoint import load_network, write_atomically
from vervet.models.vit import VisionTransformer
from vervet.spectrogram import LogMel

OUTPUTS = ("logits", "embedding", "attention", "log_mel")
CARD_KEYS = (
    "labels",
    "network",
    "corpora",
    "protocol",
    "leaky",
    "fold",
    "recipe",
    "split_hash",
    "commit",
    "vervet_version",
)


class WaveformModel(nn.Module):
    """Front end and network as one graph.

    Parameters
    ----------
    front_end : FrontEnd
        Settings of the image.
    network : VisionTransformer
        What reads it.
    """

    def __init__(self, front_end: FrontEnd, network: VisionTransformer):
        super().__init__()
        self.log_mel = LogMel(front_end)
        self.network = network

    def forward(self, waveforms: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Recognise the emotion.

        Parameters
        ----------
        waveforms : Tensor
            (batch, samples) float32 in [-1, 1].

        Returns
        -------
        tuple of Tensor
            Logits (batch, classes); embedding, the CLS feature (batch, embed_dim); attention of the CLS token to each
            patch in the last block, mean over heads (batch, patches); the image (batch, n_mels, width).
        """
        images = self.log_mel(waveforms)  # (batch, 1, n_mels, width)
        tokens, mask = self.network.tokens(images), self.network.mask(images)
        for block in self.network.blocks[:-1]:
            tokens = block(tokens, mask=mask)
        last = self.network.last_block
        attention = last.attention.cls_weights(tokens, mask).mean(1)  # (batch, patches)
        embedding = self.network.norm(last(tokens, asking=1, mask=mask)[:, 0])
        return self.network.head(embedding), embedding, attention, images[:, 0]


def export(folder: Path, out: Path, int8: bool = False) -> Path:
    """Write the network of a run as ONNX.

    Parameters
    ----------
    folder : Path
        A run, or one stage of it: holds `model.safetensors` and `model.json`.
    out : Path
        The `.onnx` file. Its input is `waveform` (batch, samples) float32 at the rate in the metadata; its outputs
        are `logits`, `embedding`, `attention`, `log_mel`, as `WaveformModel` returns them. The metadata's key `vervet`
        holds JSON: labels, sampling_rate, duration_s, network, protocol, leaky, corpora, fold, split_hash, commit,
        version, precision.
    int8 : bool, optional
        Weights of the network's matrix products as 8-bit integers, a scale per column, and their inputs quantised as
        they come. About half the time and a third of the file; front end, norms and attention stay float32.

    Returns
    -------
    Path
        `out`, written whole or not at all.

    Raises
    ------
    ValueError
        If the folder holds no network, or `out` does not end in .onnx.
    """
    if out.suffix != ".onnx":
        raise ValueError(f"{out}: the name of an exported model ends in .onnx")
    network, card = load_network(folder)
    front_end = merge(FrontEnd(), card["front_end"], str(folder / "model.json"))
    model = WaveformModel(front_end, network).eval()
    proto = _graph(model, front_end.samples)
    if int8:
        proto = quantised(proto)
    entry = proto.metadata_props.add()
    precision = {"precision": "int8" if int8 else "float32"}
    entry.key, entry.value = "vervet", json.dumps(_metadata(card, front_end) | precision)
    onnx.checker.check_model(proto)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, proto.SerializeToString())
    return out


def _graph(model: WaveformModel, samples: int) -> onnx.ModelProto:
    example = torch.randn(2, samples) * 0.1
    # The exporter warns of torchvision, which is not needed, and of what it will do in later versions.
    log = logging.getLogger("torch.onnx")
    level = log.level
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model, (example,), path, input_names=["waveform"], output_names=list(OUTPUTS), external_data=False,
            dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
        )  # fmt: skip
        log.setLevel(level)
        proto = onnx.load(path)
    # What depends on weights alone is computed now, whatever its size.
    return optimizer.optimize(proto, input_size_limit=1 << 30, output_size_limit=1 << 30)


def quantised(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Quantise the network of an exported model; the front end stays as it is.

    Parameters
    ----------
    proto : onnx.ModelProto
        As `export` writes it.

    Returns
    -------
    onnx.ModelProto
        With dynamic int8 in the matrix products by constants that follow the image; its metadata is kept.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}
    image = next(node.input[0] for node in proto.graph.node if "log_mel" in node.output)
    behind, chosen = {image}, []
    for node in proto.graph.node:  # in topological order
        if behind.intersection(node.input):
            behind.update(node.output)
            if node.op_type == "MatMul" and node.input[1] in weights:
                chosen.append(node.name)
    del proto.graph.value_info[:]  # shapes that would contradict the quantiser's own rewriting
    log = logging.getLogger()  # it advises, on the root logger, steps that this graph does not need
    level = log.level
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(proto, source)
        log.setLevel(logging.ERROR)
        try:
            quantization.quantize_dynamic(
                source, target, op_types_to_quantize=["MatMul"], nodes_to_quantize=chosen, per_channel=True,
                weight_type=quantization.QuantType.QInt8,
            )  # fmt: skip
        finally:
            log.setLevel(level)
        return onnx.load(target)


def _metadata(card: dict[str, Any], front_end: FrontEnd) -> dict[str, Any]:
    audio = {"sampling_rate": front_end.sampling_rate, "duration_s": front_end.duration_s}
    return audio | {key: card[key] for key in CARD_KEYS}
