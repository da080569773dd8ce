"""A trained network as one ONNX file: a waveform in, logits out, and all that a user must know in its metadata."""

import json
import logging
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from onnxscript import optimizer
from torch import Tensor, nn

from vervet.config import FrontEnd, merge
from vervet.files import write_whole
from vervet.models.checkpoint import enrols, load_network
from vervet.models.exported import KEY, origin, places
from vervet.models.functionals import FUNCTIONALS
from vervet.models.vit import VisionTransformer
from vervet.spectrogram import LogMel

WeightPrecision = Literal["float32", "float16", "int8"]

LEAST_STEPS = 8  # of a waveform that is shorter than the window
OUTPUTS = ("logits", "embedding", "attention", "log_mel")
ENROL_OUTPUT = "statistics"  # of networks that know what other clips of a speaker say
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
OPTIONAL_KEYS = (
    "stage",  # whether the teacher's feature was matched only, and whether there is a second head
    "temperature",  # of networks with validation clips
    "uncertain_below",
    "base",  # of fine-tuned ones: what they were before, and what to expect of them
    "estimate",
    "voices",  # that trained it, of published corpora: see vervet.evaluation.leakage.voices_of
    "heard",  # of recordings of a user's own: see vervet.evaluation.leakage.heard_by
)


class WaveformModel(nn.Module):
    """Front end and network as one graph.

    An elastic network, see `VisionTransformer.elastic`, takes waveforms of any length up to its window, a multiple of
    the hop with half a window of silence at the end, and computes no more than they need. To a network without
    positions all black columns are one and the same token, so one stands for all that are missing: where attention
    looks at it, it counts as many times. The answer is that of the padded image.

    Parameters
    ----------
    front_end : FrontEnd
        Settings of the image.
    network : VisionTransformer
        What reads it.
    temperature : float, optional
        What the logits are divided by, see `vervet.evaluation.calibration`.
    enrols : bool, optional
        Whether the network was trained to know the statistics of other clips by the same speaker.
    """

    def __init__(self, front_end: FrontEnd, network: VisionTransformer, temperature: float = 1.0, enrols: bool = False):
        super().__init__()
        self.enrols = enrols
        self.log_mel = LogMel(front_end)
        self.network = network
        self.temperature = temperature
        self.elastic = network.elastic and front_end.samples % front_end.hop_length == 0

    def forward(self, waveforms: Tensor, speaker: Tensor | None = None) -> tuple[Tensor, ...]:
        """Recognise the emotion.

        Parameters
        ----------
        waveforms : Tensor
            (batch, samples) float32 in [-1, 1].
        speaker : Tensor, optional
            (batch, 3, values) float32, the sum of the statistics of other clips by the speaker; 0 where there are none.

        Returns
        -------
        tuple of Tensor
            Logits (batch, classes), divided by the temperature; embedding, the CLS feature (batch, embed_dim);
            attention of the CLS token in the last block, mean over heads, of patches one above the other their sum
            (batch, patches side by side); the image (batch, n_mels, width); and of a model that enrols, the clip's own
            statistics (batch, 3, values).
        """
        images = self.log_mel(waveforms)  # (batch, 1, n_mels, columns)
        network, width = self.network, self.network.config.image[1]
        tokens, mask = network.tokens(images, self.elastic, speaker)
        summary = network.summary(images)
        own = (network.statistics(images, summary),) if self.enrols else ()
        stand_in = self.elastic and mask is None
        missing = width - torch.ones_like(images[:1, 0, 0]).sum(dim=1, keepdim=True)  # (1, 1), columns
        if stand_in:
            black = network.patches(torch.zeros_like(images[:, :, :, :1]))  # (batch, 1, dim)
            tokens = torch.cat([tokens[:, :1], black, tokens[:, 1:]], dim=1)
            counts = torch.cat([torch.ones_like(missing), missing, torch.ones_like(images[:1, 0, 0])], dim=1)
            mask = counts.log()[:, None, None]  # (1, 1, 1, 2 + columns); minus infinity where none is missing
        for block in network.blocks[:-1]:
            tokens = block(tokens, mask=mask)
        last = network.last_block
        attention = last.attention.cls_weights(tokens, mask).mean(1)  # (batch, patches)
        embedding = network.norm(last(tokens, asking=1, mask=mask)[:, 0])
        logits = network.logits(embedding, summary, speaker) / self.temperature
        if self.elastic:
            share = attention[:, :1] / missing.clamp(min=1) if stand_in else torch.zeros_like(attention[:, :1])
            heard = attention[:, 1:] if stand_in else attention
            patches = network.config.grid[1]
            attention = torch.cat([heard, share.expand(-1, patches)], dim=1)[:, :patches]
            images = torch.cat([images[:, 0], torch.zeros_like(images[:, 0, :, :1]).expand(-1, -1, width)], dim=2)
            return logits, embedding, attention, images[:, :, :width], *own
        if network.config.grid[0] > 1:
            attention = attention.unflatten(1, network.config.grid).sum(1)
        return logits, embedding, attention, images[:, 0], *own


def export(folder: Path, out: Path, precision: WeightPrecision = "float32") -> Path:
    """Write the network of a run as ONNX.

    Parameters
    ----------
    folder : Path
        A run, or one stage of it: holds `model.safetensors` and `model.json`.
    out : Path
        The `.onnx` file. Its input is `waveform` (batch, samples) float32 at the rate in the metadata; its outputs
        are `logits`, `embedding`, `attention`, `log_mel`, as `WaveformModel` returns them. The metadata's key `vervet`
        holds JSON: labels, sampling_rate, duration_s, network, protocol, leaky, corpora, fold, split_hash, commit,
        version, precision; `temperature`, by which the logits are divided already, and `uncertain_below`, where they
        were chosen. Of a network that takes shorter waveforms too, it also holds `step_samples`, of which their
        length must be a multiple, `least_samples`, and `tail_samples`, the zeros that they must end with. A network
        that was trained to enrol speakers has a second input `speaker` and the output `statistics`. The key
        `vervet_network` says how to rebuild the network, see `vervet.models.exported`; int8 files lack it.
    precision : {"float32", "float16", "int8"}
        Of the weights. In float16 those of the network's layers are rounded to 11 bits and become float32 again when
        the model is opened: little more than half of the file, as fast, and the same answers to about 0.001. In int8
        those of its matrix products are 8-bit integers, a scale per column, and their inputs are quantised as they
        come: two fifths of the file, a little faster. Front end, norms and attention stay float32.

    Returns
    -------
    Path
        `out`, written whole or not at all.

    Raises
    ------
    ValueError
        If the folder holds no network, its weights do not fit the precision, or `out` does not end in .onnx.
    """
    if out.suffix != ".onnx":
        raise ValueError(f"{out}: the name of an exported model ends in .onnx")
    network, card = load_network(folder)
    if network.reduce is not None:
        network.reduce.fold()
    front_end = merge(FrontEnd(), card["front_end"], str(folder / "model.json"))
    model = WaveformModel(front_end, network, card.get("temperature", 1.0), enrols(card)).eval()
    values = front_end.n_mels + (0 if network.functionals is None else FUNCTIONALS)  # that say who speaks
    proto = _graph(model, front_end, values)
    metadata = {}
    if precision == "int8":
        proto = quantised(proto)
    elif (found := origin(network, front_end, proto)) is not None:
        metadata[KEY] = found
    if precision == "float16":
        layers = {name for name, parameter in network.named_parameters() if parameter.ndim > 1}
        halve(proto, places(metadata.get(KEY), layers))
    told: dict[str, Any] = {"precision": precision}
    if model.elastic:
        step, tail = front_end.hop_length, front_end.win_length // 2
        told |= {"step_samples": step, "least_samples": LEAST_STEPS * step, "tail_samples": tail}
    if model.enrols:
        told["speaker_values"] = values
    metadata["vervet"] = _metadata(card, front_end) | told
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    onnx.checker.check_model(proto)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, proto.SerializeToString())
    return out


def _graph(model: WaveformModel, front_end: FrontEnd, values: int) -> onnx.ModelProto:
    shape: dict[int, Any] = {0: torch.export.Dim("batch")}
    samples = front_end.samples
    if model.elastic:
        hops = samples // front_end.hop_length
        shape[1] = front_end.hop_length * torch.export.Dim("hops", min=LEAST_STEPS, max=hops)
        samples = hops // 2 * front_end.hop_length
    example: dict[str, Tensor] = {"waveforms": torch.randn(2, samples) * 0.1}
    shapes: dict[str, Any] = {"waveforms": shape}
    names, outputs = ["waveform"], list(OUTPUTS)
    if model.enrols:
        example["speaker"], shapes["speaker"] = torch.zeros(2, 3, values), {0: shape[0]}
        names, outputs = [*names, "speaker"], [*outputs, ENROL_OUTPUT]
    # The exporter warns of torchvision, which is not needed, and of what it will do in later versions.
    log = logging.getLogger("torch.onnx")
    level = log.level
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model, tuple(example.values()), path, input_names=names, output_names=outputs, external_data=False,
            dynamo=True, dynamic_shapes=shapes, verbose=False,
        )  # fmt: skip
        log.setLevel(level)
        proto = onnx.load(path)
    # What depends on weights alone is computed now, whatever its size.
    proto = optimizer.optimize(proto, input_size_limit=1 << 30, output_size_limit=1 << 30)
    for part in (
        proto,
        proto.graph,
        *proto.graph.node,
        *proto.graph.value_info,
        *proto.graph.input,
        *proto.graph.output,
    ):
        del part.metadata_props[:]  # where in whose source code each node comes from
        part.doc_string = ""
    return proto


def halve(proto: onnx.ModelProto, names: Iterable[str]) -> None:
    """Keep constants of an exported model in 16 bits, which are turned into float32 when it is opened.

    Parameters
    ----------
    proto : onnx.ModelProto
        As `export` makes it; changed.
    names : iterable of str
        The constants: float32.

    Raises
    ------
    ValueError
        If one is too large for float16.
    """
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for name in names:
        with np.errstate(over="ignore"):
            half = numpy_helper.to_array(tensors[name]).astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(
                f"the weights {name!r} go beyond {np.finfo(np.float16).max:.0f}, which float16 cannot hold"
            )
        tensors[name].CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
        proto.graph.node.insert(0, helper.make_node("Cast", [f"{name}.float16"], [name], to=TensorProto.FLOAT))


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
    ahead = {"log_mel"}  # what the image depends on: the front end
    for node in reversed(proto.graph.node):  # they stand in topological order
        if ahead.intersection(node.output):
            ahead.update(node.input)
    chosen = [
        node.name
        for node in proto.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights and not ahead.intersection(node.output)
    ]
    del proto.graph.value_info[:]  # shapes that would contradict the quantiser's own rewriting
    log = logging.getLogger()  # it advises, on the root logger, steps that this graph does not need
    level = log.level
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(proto, source)
        log.setLevel(logging.ERROR)
        try:
            # Weights of 7 bits: processors without VNNI add pairs of products in 16 bits, which 8 would overflow.
            quantization.quantize_dynamic(
                source, target, op_types_to_quantize=["MatMul"], nodes_to_quantize=chosen, per_channel=True,
                weight_type=quantization.QuantType.QInt8, reduce_range=True,
            )  # fmt: skip
        finally:
            log.setLevel(level)
        return onnx.load(target)


def _metadata(card: dict[str, Any], front_end: FrontEnd) -> dict[str, Any]:
    audio = {"sampling_rate": front_end.sampling_rate, "duration_s": front_end.duration_s, "band_hz": front_end.band_hz}
    known = {key: card[key] for key in OPTIONAL_KEYS if card.get(key) is not None}
    return audio | {key: card[key] for key in CARD_KEYS} | known
