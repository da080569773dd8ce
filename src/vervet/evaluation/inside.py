"""Pictures of what goes on inside trained networks: attention, positions, the stem, and the method as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from vervet.audio import fit, read, resample
from vervet.augment import version
from vervet.config import VERSIONS, Augment, FrontEnd, merge
from vervet.evaluation.figures import BLUE, INK, MUTED, ORANGE, new_figure, protocol_title, titles
from vervet.models.checkpoint import load_network
from vervet.models.vit import VisionTransformer
from vervet.spectrogram import LogMel

MEL_COLOURS = "magma"


def draw_inside(folders: Sequence[Path], recording: Path, out: Path) -> list[Path]:
    """Draw every figure that the networks allow.

    Parameters
    ----------
    folders : sequence of Path
        Stages of finished runs, or runs: each holds `model.safetensors` and `model.json`. All need the same front end.
    recording : Path
        The clip to look at.
    out : Path
        A folder; made if need be.

    Returns
    -------
    list of Path
        The PNGs: `attention.png`; `positions-N.png` and `stem-N.png` of the N-th network if it has coordinates or a
        stem; `method.png` if one has vertical patches.

    Raises
    ------
    ValueError
        If a folder holds no network, or the recording cannot be read.
    """
    loaded = [load_network(folder) for folder in folders]
    front_ends = [
        merge(FrontEnd(), card["front_end"], str(folder)) for folder, (_, card) in zip(folders, loaded, strict=True)
    ]
    if any(front_end != front_ends[0] for front_end in front_ends):
        raise ValueError("the networks have different front ends; draw them one by one")
    waveform = resample(*read(recording), front_ends[0].sampling_rate)
    images = _versions(waveform, front_ends[0])
    figures = {"attention": attention_figure(loaded, images)}
    for number, (model, card) in enumerate(loaded):
        if model.planes is not None:
            figures[f"positions-{number}"] = positions_figure(model, card, images[:1])
        if model.config.stem:
            figures[f"stem-{number}"] = stem_figure(model, card, images[:1])
    vertical = [pair for pair in loaded if pair[0].config.grid[0] == 1]
    if vertical:
        figures["method"] = method_figure(*vertical[-1], fit(waveform, front_ends[0].samples), images[:1])
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png", dpi=110)
    return [out / f"{name}.png" for name in figures]


def _versions(waveform: np.ndarray, front_end: FrontEnd) -> Tensor:
    """(4, 1, n_mels, width) float32: the four versions of a clip as images; its speed is 1.2."""
    augment = Augment(speeds=(1.2,))
    made = [version(waveform, name, augment, front_end, np.random.default_rng(0)) for name in VERSIONS]
    return LogMel(front_end)(torch.from_numpy(np.stack(made)))


def _name(card: dict[str, Any], model: VisionTransformer) -> str:
    height, width = model.config.patch
    return f"{card['network']}, patches {height} x {width}"


@torch.inference_mode()
def attention_figure(loaded: Sequence[tuple[VisionTransformer, dict[str, Any]]], images: Tensor) -> Figure:
    """Draw where the last block of each network looks, in the four versions of a clip.

    Parameters
    ----------
    loaded : sequence of (VisionTransformer, dict)
        Networks and their cards, one per column.
    images : Tensor
        (4, 1, n_mels, width): original, speed, noise, shift.

    Returns
    -------
    Figure
        The log-Mel image in grey, what the CLS token attends to over it.
    """
    figure = new_figure(1.2 + 3.8 * len(loaded), 8.2)
    panels = figure.subplots(len(VERSIONS), len(loaded), squeeze=False, sharex=True, sharey=True)
    for column, (model, card) in enumerate(loaded):
        weights = model.attention(images)[:, -1].mean(1).reshape(-1, *model.config.grid)  # (4, rows, columns)
        for row, name in enumerate(VERSIONS):
            axes = panels[row, column]
            _mel(axes, images[row, 0], "gray_r")
            _overlay(axes, weights[row], model.config.image)
            axes.set_ylabel(name if column == 0 else "", fontweight="bold")
        panels[0, column].set_title(_name(card, model), loc="left", fontsize=9.5, color=INK)
    titles(
        figure, protocol_title("Attention over time", loaded[0][1]["protocol"]), "Orange: attention of the CLS token."
    )
    return figure


def _mel(axes: Axes, image: Tensor, colours: str = MEL_COLOURS) -> None:
    axes.imshow(image.numpy(), origin="lower", aspect="auto", cmap=colours, vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])


def _overlay(axes: Axes, weights: Tensor, size: tuple[int, int]) -> None:
    """Attention (rows, columns) as orange over the image: opaque where it is strongest."""
    rows, columns = weights.shape
    spread = np.kron(weights.numpy(), np.ones((size[0] // rows, size[1] // columns)))
    colour = np.broadcast_to([0xE6 / 255, 0x9F / 255, 0.0], (*spread.shape, 3))
    alpha = 0.85 * spread / spread.max()
    axes.imshow(np.dstack([colour, alpha]), origin="lower", aspect="auto")
    if rows == 1:  # over time alone: a curve says more
        height = size[0] * 0.3 * weights[0].numpy() / float(weights.max())
        axes.plot((np.arange(columns) + 0.5) * size[1] / columns - 0.5, height, color=INK, linewidth=1)


@torch.inference_mode()
def positions_figure(model: VisionTransformer, card: dict[str, Any], image: Tensor) -> Figure:
    """Draw how alike a network's tokens are, with its coordinates and with the coordinates set to zero.

    Parameters
    ----------
    model : VisionTransformer
        With image coordinate encoding.
    card : dict
        Its card.
    image : Tensor
        (1, 1, n_mels, width).

    Returns
    -------
    Figure
        Cosine similarity of every two patch tokens before the first block: of a blank image and of this one.
    """
    planes = model.planes
    assert planes is not None
    tokens = {}
    for label, used in (("with coordinates", planes), ("coordinates set to zero", torch.zeros_like(planes))):
        model.planes = used
        for name, shown in (("blank image", torch.zeros_like(image)), ("this recording", image)):
            tokens[label, name] = model.tokens(shown)[0][0, 1:]  # (patches, embed_dim)
    model.planes = planes
    figure = new_figure(7.6, 7.2)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    drawn = None
    for axes, ((label, name), vectors) in zip(panels.flat, tokens.items(), strict=True):
        unit = F.normalize(vectors, dim=1)
        drawn = axes.imshow((unit @ unit.T).numpy(), cmap="RdBu_r", vmin=-1, vmax=1, origin="lower")
        axes.set_title(f"{label}, {name}", loc="left", fontsize=9, color=INK)
    for axes in panels[1]:
        axes.set_xlabel("patch")
    for axes in panels[:, 0]:
        axes.set_ylabel("patch")
    assert drawn is not None
    figure.colorbar(drawn, ax=panels, shrink=0.6, label="cosine similarity")
    titles(figure, protocol_title(f"Positions: {_name(card, model)}", card["protocol"]))
    return figure


@torch.inference_mode()
def stem_figure(model: VisionTransformer, card: dict[str, Any], image: Tensor) -> Figure:
    """Draw an image (1, 1, n_mels, width) before and after a network's convolutional stem."""
    after = model.stem(image)[0, 0]
    figure = new_figure(8.4, 3.6)
    left, right = figure.subplots(1, 2, sharey=True)
    _mel(left, image[0, 0])
    left.set_title("log-Mel image", loc="left", fontsize=9.5, color=INK)
    drawn = right.imshow(after.numpy(), origin="lower", aspect="auto", cmap=MEL_COLOURS)
    right.set_xticks([])
    right.set_title("after the stem", loc="left", fontsize=9.5, color=INK)
    figure.colorbar(drawn, ax=right, shrink=0.8)
    titles(figure, protocol_title(f"Stem: {_name(card, model)}", card["protocol"]))
    return figure


@torch.inference_mode()
def method_figure(model: VisionTransformer, card: dict[str, Any], waveform: np.ndarray, image: Tensor) -> Figure:
    """Draw the way from a waveform to an emotion through one network with vertical patches.

    Parameters
    ----------
    model : VisionTransformer
        Its patches are columns.
    card : dict
        Its card.
    waveform : np.ndarray
        (samples,) float32, as long as the image.
    image : Tensor
        (1, 1, n_mels, width).

    Returns
    -------
    Figure
        From top to bottom: waveform, log-Mel image, every fourth column as a patch, attention, probabilities.
    """
    seconds = len(waveform) / card["front_end"]["sampling_rate"]
    columns = image.shape[-1]
    weights = model.attention(image)[0, -1].mean(0).numpy()  # (patches,)
    probabilities = (model(image)[0] / card.get("temperature", 1.0)).softmax(1)[0].numpy()
    figure = new_figure(8.4, 8.6)
    panels = figure.subplots(5, 1, height_ratios=[1, 2.2, 2.2, 1, 1.8])
    time = np.linspace(0, seconds, len(waveform))
    panels[0].plot(time, waveform, color=MUTED, linewidth=0.5)
    panels[0].set_xlim(0, seconds)
    _mel(panels[1], image[0, 0])
    shown = image[0, 0, :, ::4].numpy()
    spaced = np.full((len(shown), 2 * shown.shape[1]), np.nan)
    spaced[:, ::2] = shown
    panels[2].imshow(spaced, MEL_COLOURS, aspect="auto", interpolation="nearest", vmin=0, vmax=1, origin="lower")
    panels[3].bar(np.arange(len(weights)), weights, 1.0, color=ORANGE)
    panels[3].set_xlim(-0.5, len(weights) - 0.5)
    panels[4].barh(card["labels"], probabilities, color=BLUE)
    panels[4].invert_yaxis()
    panels[4].set_xlim(0, 1)
    told_of = (
        "each column" if len(weights) == columns else f"what convolutions make of {columns / len(weights):.0f} columns"
    )
    told = (
        f"1  waveform: {seconds:g} s, zeros after the speech",
        f"2  log-Mel image: {image.shape[-2]} bands x {columns} columns",
        f"3  vertical patches: {told_of} is one token (every fourth column is shown)",
        "4  attention of the CLS token to each patch, last block",
        "5  probabilities",
    )
    for axes, text in zip(panels, told, strict=True):
        axes.set_title(text, loc="left", fontsize=9.5, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[:4]:
        axes.set_yticks([])
    for axes in panels[1:4]:
        axes.set_xticks([])
    titles(figure, protocol_title(f"From a voice to an emotion: {_name(card, model)}", card["protocol"]))
    return figure
