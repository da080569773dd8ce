"""What it is worth on a GPU to record a batch as a CUDA graph: milliseconds per batch, recorded and kernel by kernel.

    python benchmarks/gpu_batches.py [--batches 300]

Training as `vervet train` does it, on random images of the size and with the settings of two recipes, of which the last
of three epochs is timed. Without a GPU there is nothing to measure.
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator

from vervet.config import load_recipe
from vervet.models.vit import VisionTransformer
from vervet.training import fit
from vervet.training.pool import Images

RECIPES = Path(__file__).parent.parent / "recipes"
CASES = (("vervet", "student"), ("fast", "teacher"), ("fast", "matching"), ("fast", "student"))
CLASSES = tuple("abcdefg")


def milliseconds(name, part, batches, recorded):
    """Per batch, over one epoch."""
    fit._Loop.FIRST = 3 if recorded else 10**9
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    stage = dataclasses.replace(getattr(recipe, part), epochs=3)
    network = recipe.teacher_network if part == "teacher" else recipe.student_network
    count, (height, width) = batches * stage.batch_size, network.image
    images = torch.rand(count, 1, height, width).half() * (torch.arange(width) < 0.6 * width)
    targets = torch.randn(count, network.embed_dim) if stage.alpha else None
    emotions, speakers = torch.randint(len(CLASSES), (count,)), torch.arange(count) // 40
    train = fit.Side(Images(images, torch.arange(count)), emotions, targets, speakers)
    nothing = fit.Side(Images(images, torch.arange(0)), emotions[:0])
    with tempfile.TemporaryDirectory() as folder:
        history = fit.fit(
            VisionTransformer(network, len(CLASSES)), stage, part, train, nothing, CLASSES, 0, Path(folder),
            Accelerator(), recipe.precision, recipe.augment.online, recipe.front_end,
        )  # fmt: skip
    return 1000 * history[-1]["seconds"] / (len(fit._order(train, stage, 0)) // stage.batch_size)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=300, help="of an epoch; default: 300")
    words = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no GPU: nothing to measure")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    print(f"{'':18}{'batch':>6}{'one by one':>12}{'recorded':>10}{'times':>7}")
    for name, part in CASES:
        size = getattr(load_recipe(RECIPES / f"{name}.yaml"), part).batch_size
        slow, fast = (milliseconds(name, part, words.batches, recorded) for recorded in (False, True))
        print(f"{name + ', ' + part:18}{size:6}{slow:9.2f} ms{fast:7.2f} ms{slow / fast:7.1f}", flush=True)


if __name__ == "__main__":
    main()
