"""What a network costs: its parameters, and its multiply-accumulates (MACs) per image, counted as it runs."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vervet.config import NETWORKS, Vit
from vervet.models.vit import VisionTransformer


def parameters(module: nn.Module) -> int:
    """Count the weights that training changes; a tensor that is used twice counts once.

    Parameters
    ----------
    module : nn.Module
        Any module.

    Returns
    -------
    int
        Number of scalars in its trainable parameters.
    """
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def macs(module: nn.Module, inputs: Tensor) -> int:
    """Run a module once and count the multiply-accumulates of its matrix products and convolutions.

    Parameters
    ----------
    module : nn.Module
        Any module that takes one tensor; it runs without gradients, as in prediction.
    inputs : Tensor
        What it takes. The count is for all of it, so a cost per image needs a batch of one. On the `meta` device
        nothing is computed, only counted.

    Returns
    -------
    int
        MACs, half of the operations that PyTorch counts. Biases, norms, activations and softmax count nothing, and a
        convolution's padding is counted like data, as is the custom.

    Notes
    -----
    PyTorch's own table of costs knows the fused attention of GPUs but not that of the CPU, which it sees as free. It is
    added here. The counter sits below the choice of attention: either one fused operation passes it or the two products
    that replace it do, so attention counts once whichever runs.
    """
    training = module.training
    module.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
            module(inputs)
    finally:
        module.train(training)
    return counter.get_total_flops() // 2


def cost(config: Vit, classes: int) -> dict[str, int]:
    """Count what a network of any shape costs.

    Parameters
    ----------
    config : Vit
        Its shape.
    classes : int
        Number of emotions.

    Returns
    -------
    dict
        parameters; macs (per image, every token through every block, as published); macs_computed (the last block for
        the one token that is read).
    """
    with torch.device("meta"):  # shapes without numbers: nothing is drawn, nothing is computed
        model, image = VisionTransformer(config, classes), torch.empty(1, 1, *config.image)
    return {
        "parameters": parameters(model),
        "macs": macs(_EveryToken(model), image),
        "macs_computed": macs(model, image),
    }


def describe(network: str, classes: int) -> dict[str, Any]:
    """Shape and cost of a preset network.

    Parameters
    ----------
    network : str
        One of `vervet.config.NETWORKS`.
    classes : int
        Number of emotions, 2 or more.

    Returns
    -------
    dict
        JSON-ready: network, classes, parameters, macs (per image, every token through every block, as published),
        macs_computed (the last block for the one token that is read), image (Mel bands, columns), patch (height, width
        in pixels), patches (their number), position, stem and reduce (channels), depth, heads, dim_head, embed_dim,
        mlp_dim.

    Raises
    ------
    ValueError
        For an unknown network, or fewer than 2 classes.

    Examples
    --------
    >>> describe("student", 7)["parameters"]
    1417991
    """
    if network not in NETWORKS:
        raise ValueError(f"unknown network {network!r}; known are {', '.join(NETWORKS)}")
    if classes < 2:
        raise ValueError(f"a network tells apart 2 classes or more, not {classes}")
    config = NETWORKS[network]
    return {
        "network": network,
        "classes": classes,
        **cost(config, classes),
        "image": list(config.image),
        "patch": list(config.patch),
        "patches": prod(config.grid),
        "position": config.position,
        "stem": list(config.stem),
        "reduce": list(config.reduce),
        "depth": config.depth,
        "heads": config.heads,
        "dim_head": config.dim_head,
        "embed_dim": config.embed_dim,
        "mlp_dim": config.mlp_dim,
    }


def summary(described: dict[str, Any]) -> str:
    """Say in a few lines what `describe` found.

    Parameters
    ----------
    described : dict
        From `describe`.

    Returns
    -------
    str
        One aligned line per fact, without a final line break.
    """
    image, patch = (" x ".join(map(str, described[key])) for key in ("image", "patch"))
    facts = {
        "network": f"{described['network']}, {described['classes']} classes",
        "parameters": f"{described['parameters']:,}",
        "multiply-accumulates": f"{described['macs'] / 1e6:,.1f} M per image as published, every token in every block",
        "of these computed": f"{described['macs_computed'] / 1e6:,.1f} M: of the last block only what is read",
        "image": f"{image} (Mel bands x columns)",
        "patches": f"{described['patches']} of {patch}, position: {described['position']}"
        if not described["reduce"]
        else f"{described['patches']}, each a column of the reduced image, position: {described['position']}",
        "stem": " - ".join(map(str, (1, *described["stem"], 1))) + " channels" if described["stem"] else "none",
        "reduced by": "3 x 3 convolutions to " + ", ".join(map(str, described["reduce"])) + " channels"
        if described["reduce"]
        else "nothing",
        "blocks": f"{described['depth']} of {described['heads']} heads x {described['dim_head']}, "
        f"width {described['embed_dim']}, feed-forward {described['mlp_dim']}",
    }
    return "\n".join(f"{name:<22}{fact}" for name, fact in facts.items())


class _EveryToken(nn.Module):
    """The network without leaving anything out of its last block."""

    def __init__(self, model: VisionTransformer):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 1, height, width) -> logits (batch, classes)."""
        return self.model.logits(self.model.every_token(images)[:, 0], self.model.summary(images))


def _attention_flops(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Operations of fused attention, of shapes (batch, heads, tokens, dim): scores, then weighted values."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
