"""Tensors and plain data in one safetensors file, written whole or not at all. Nothing is ever unpickled."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from vervet.config import Vit, merge
from vervet.files import read_json, write_json, write_whole
from vervet.models.vit import VisionTransformer

HUB_KEYS = ("model_type", "architectures", "id2label", "label2id")  # of a config.json; the others are those of a card


def save(path: Path, tensors: dict[str, Tensor], data: dict[str, Any]) -> None:
    """Write named tensors and plain data into one file, atomically.

    Parameters
    ----------
    path : Path
        A `.safetensors` file.
    tensors : dict of str to Tensor
        On any device; stored as they are.
    data : dict
        Anything that JSON can hold; goes into the header.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, to_bytes(contiguous, metadata={"vervet": json.dumps(data)}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back what `save` wrote.

    Raises
    ------
    ValueError
        If the file is not one of ours; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            data = json.loads((file.metadata() or {})["vervet"])
            return {name: file.get_tensor(name) for name in file.keys()}, data  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: not a Vervet checkpoint ({error})") from error


def save_network(folder: Path, model: VisionTransformer, card: dict[str, Any]) -> None:
    """Write a network as `model.safetensors` and `model.json` into a folder.

    Parameters
    ----------
    folder : Path
        Must exist.
    model : VisionTransformer
        Its shape goes into the card, so that the pair suffices to rebuild it.
    card : dict
        What the network is and where it comes from: at least `labels` and `front_end`.
    """
    save(folder / "model.safetensors", model.state_dict(), {"card": "model.json"})
    write_json(folder / "model.json", card | {"vit": asdict(model.config)})


def enrols(card: dict[str, Any]) -> bool:
    """Whether a network was trained to know the statistics of other clips by the same speaker."""
    return card.get("settings", {}).get("enrol", 0) > 0 or "speaker_values" in card  # of what was exported


def load_network(folder: Path) -> tuple[VisionTransformer, dict[str, Any]]:
    """Rebuild the network of a folder (a run, a stage, what `vervet export --hub` wrote) or of an exported ONNX file.

    Returns
    -------
    tuple of VisionTransformer and dict
        In evaluation mode, on the CPU; and its card.

    Raises
    ------
    ValueError
        If the folder holds no network, or one that does not fit its card.
    """
    if folder.suffix == ".onnx" and folder.is_file():
        from vervet.models.exported import read_exported  # imports onnx, which training does without

        return read_exported(folder.read_bytes(), str(folder))
    path = next((folder / name for name in ("model.json", "config.json") if (folder / name).exists()), None)
    if path is None:
        raise ValueError(f"{folder}: holds no model.json; is it a finished run?")
    card = read_json(path)
    try:
        if path.name == "config.json":
            card = _from_hub(card, path)
        shape, classes = merge(Vit(), card["vit"], str(path)), len(card["labels"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the card of a Vervet model; its network or its labels are missing") from error
    model = VisionTransformer(shape, classes)
    tensors, _ = load(folder / "model.safetensors")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{folder}: model.safetensors does not fit {path.name}: {error}") from error
    return model.eval(), card


def to_hub(card: dict[str, Any]) -> dict[str, Any]:
    """Put a card into the form of a `config.json` on the Hugging Face Hub, where labels are numbered."""
    labels = card["labels"]
    return {
        "model_type": "vervet",
        "architectures": ["VisionTransformer"],
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    } | {key: value for key, value in card.items() if key != "labels"}


def _from_hub(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Take the card back from a `config.json`."""
    if config.get("model_type") != "vervet":
        raise ValueError(f"{path}: describes a model of type {config.get('model_type')!r}, not 'vervet'")
    numbered = config["id2label"]
    ours = {key: value for key, value in config.items() if key not in HUB_KEYS}
    return {"labels": [numbered[str(number)] for number in range(len(numbered))]} | ours
