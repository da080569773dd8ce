"""What a training step costs, beside a plain implementation of the same networks, in one run on one machine.

    python benchmarks/training_cost.py [--rounds 15] [--batch 4] [--threads N]

The plain one is what a reader of the paper would write first: float32, `nn.InstanceNorm2d`, PyTorch's fused attention,
every token through every block, one Adam kernel per parameter. Contenders take turns, so that a machine whose speed
drifts is unfair to none; the figure is the median over rounds, of the clock.
"""

import argparse
import copy
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

from vervet.config import NETWORKS
from vervet.evaluation.complexity import macs
from vervet.models.vit import Attention, VisionTransformer

CLASSES = 7


class PlainAttention(Attention):
    def forward(self, x, asking=None, mask=None):
        y = F.scaled_dot_product_attention(*self.split(x))
        return self.project(y.transpose(1, 2).flatten(2))


class PlainVisionTransformer(VisionTransformer):
    def features(self, images, speaker=None):
        return self.every_token(images)[:, 0]


class PlainStem(nn.Sequential):
    def __init__(self, convs):
        layers = [layer for conv in convs for layer in (conv, nn.InstanceNorm2d(conv.out_channels), nn.GELU())]
        super().__init__(*layers)


def plain(model):
    """The same weights in plain modules."""
    model = copy.deepcopy(model)
    model.__class__ = PlainVisionTransformer
    for block in model.blocks:
        block.attention.__class__ = PlainAttention
    if model.config.stem:
        model.stem = PlainStem(model.stem.convs)
    return model


def stepper(model, precision, fused, batch):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused, foreach=False if not fused else None)
    images, emotions = torch.rand(batch, 1, 128, 128), torch.randint(CLASSES, (batch,))

    def step():
        # Not vervet's own, which takes float32 where the processor has no instructions for bfloat16.
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            logits, _ = model(images)
        F.cross_entropy(logits.float(), emotions).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure(contenders, rounds):
    """Milliseconds of the clock per step: contender -> one per round."""
    for step in contenders.values():
        step(), step()
    times = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, step in contenders.items():
            start = time.perf_counter()
            step()
            times[name].append(1000 * (time.perf_counter() - start))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"batch {args.batch}, {args.threads} threads, median of {args.rounds} rounds")
    print(f"{'network':10} {'contender':20} {'ms / image':>10} {'GMAC / s':>9} {'faster':>7}")
    for network in ("teacher", "student"):
        model = VisionTransformer(NETWORKS[network], CLASSES)
        forward = macs(model, torch.rand(1, 1, 128, 128))
        contenders = {
            "plain, float32": stepper(plain(model), "float32", False, args.batch),
            "plain, bfloat16": stepper(plain(model), "bfloat16", False, args.batch),
            "vervet, float32": stepper(copy.deepcopy(model), "float32", True, args.batch),
            "vervet, bfloat16": stepper(copy.deepcopy(model), "bfloat16", True, args.batch),
        }
        times = measure(contenders, args.rounds)
        first = times["plain, float32"]
        for name, found in times.items():
            ms = statistics.median(found) / args.batch
            ratio = statistics.median(a / b for a, b in zip(first, found, strict=True))
            print(f"{network:10} {name:20} {ms:10.2f} {3 * forward / ms / 1e6:9.0f} {ratio:6.2f}x")


if __name__ == "__main__":
    main()
