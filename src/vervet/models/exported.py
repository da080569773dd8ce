"""Where the weights of a network are in the ONNX file made of it, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from vervet.config import FrontEnd, Vit, merge
from vervet.models.vit import VisionTransformer

KEY = "vervet_network"  # of the metadata


def origin(network: VisionTransformer, front_end: FrontEnd, proto: onnx.ModelProto) -> dict[str, Any] | None:
    """Say how to rebuild a network from the graph that was made of it.

    Parameters
    ----------
    network : VisionTransformer
        What was exported.
    front_end : FrontEnd
        Settings of its image.
    proto : onnx.ModelProto
        What came of it.

    Returns
    -------
    dict or None
        `vit`, `front_end`, and `weights`: for each parameter its initialisers in the graph, and whether they are
        transposed; several stand for consecutive rows. Or the one number that all of it is. None if a parameter is not
        in the graph bit by bit.
    """
    tensors = _initialisers(proto)
    weights = {name: _place(value.numpy(), tensors) for name, value in network.state_dict().items()}
    if not all(weights.values()):
        return None
    return {"vit": asdict(network.config), "front_end": asdict(front_end), "weights": weights}


def read_exported(content: bytes, name: str) -> tuple[VisionTransformer, dict[str, Any]]:
    """Rebuild the network of an exported model, with every weight that the file holds.

    Parameters
    ----------
    content : bytes
        Of the ONNX file.
    name : str
        Of the model, for messages.

    Returns
    -------
    tuple of VisionTransformer and dict
        In evaluation mode, on the CPU; and its card, with `vit` and `front_end`.

    Raises
    ------
    ValueError
        If it is not a Vervet model, its weights are rounded to 8 bits, or it does not say where they are.
    """
    try:
        proto = in_float32(onnx.load_from_string(content))
        metadata = {entry.key: entry.value for entry in proto.metadata_props}
        card = json.loads(metadata["vervet"])
    except Exception as error:  # of protobuf, with no common base
        raise ValueError(f"{name}: not a Vervet model ({error})") from error
    if card.get("precision") == "int8":
        raise ValueError(f"{name}: its weights are rounded to 8 bits; start from the model in float32 or float16")
    if KEY not in metadata:
        raise ValueError(f"{name}: does not say where its weights are; export it again, or give its run folder instead")
    told, tensors = json.loads(metadata[KEY]), _initialisers(proto)
    network = VisionTransformer(merge(Vit(), told["vit"], name), len(card["labels"]))
    try:
        state = {
            key: torch.from_numpy(_gathered(told["weights"][key], tensors, value.numpy()))
            for key, value in network.state_dict().items()
        }
    except (KeyError, ValueError) as error:
        made = f"Vervet {card.get('vervet_version', 'of another version')}, commit {card.get('commit', 'unknown')}"
        raise ValueError(f"{name}: its weights do not fit the networks of this version; it is of {made}") from error
    network.load_state_dict(state)
    return network.eval(), card | {"vit": told["vit"], "front_end": told["front_end"]}


def places(told: dict[str, Any] | None, parameters: Iterable[str]) -> list[str]:
    """Name the initialisers of some parameters, of what `origin` says.

    Raises
    ------
    ValueError
        If it says nothing.
    """
    if told is None:
        raise ValueError("the weights of this network are not in its ONNX graph as they were trained: export float32")
    return sorted({name for parameter in parameters for name in told["weights"][parameter].get("of", ())})


def in_float32(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Make constants of 16 bits, as `vervet.export.halve` leaves them, constants of float32 again."""
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in [node for node in proto.graph.node if node.op_type == "Cast"]:
        half = tensors.get(node.input[0])
        if half is not None and half.data_type == onnx.TensorProto.FLOAT16:
            array = numpy_helper.to_array(half).astype(np.float32)
            half.CopyFrom(numpy_helper.from_array(array, node.output[0]))
            proto.graph.node.remove(node)
    return proto


def _initialisers(proto: onnx.ModelProto) -> dict[str, NDArray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def _place(parameter: NDArray, tensors: dict[str, NDArray]) -> dict[str, Any] | None:
    """Find a parameter by its content: what the exporter calls it, and how it cuts it up, is its own affair."""
    if parameter.size and (parameter == parameter.flat[0]).all():  # of a folded BatchNorm, say
        return {"is": parameter.flat[0].item()}
    for name, tensor in tensors.items():
        if tensor.dtype == parameter.dtype and tensor.tobytes() == parameter.tobytes():
            return {"of": [name], "transposed": False}
    names, rows = [], 0
    while parameter.ndim == 2 and rows < len(parameter):
        found = next((name for name, tensor in tensors.items() if _is_next(tensor, parameter[rows:])), None)
        if found is None:
            return None
        names.append(found)
        rows += tensors[found].shape[1]
    return {"of": names, "transposed": True} if names else None


def _is_next(tensor: NDArray, rows: NDArray) -> bool:
    """Whether a tensor, transposed, is the first of these rows."""
    if tensor.dtype != rows.dtype or tensor.ndim != 2 or tensor.size == 0 or tensor.shape[0] != rows.shape[1]:
        return False
    return tensor.T.tobytes() == rows[: tensor.shape[1]].tobytes()


def _gathered(place: dict[str, Any], tensors: dict[str, NDArray], like: NDArray) -> NDArray:
    if "is" in place:
        return np.full_like(like, place["is"])
    parts = [tensors[name].T if place["transposed"] else tensors[name] for name in place["of"]]
    return np.concatenate(parts).reshape(like.shape)
