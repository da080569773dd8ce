"""What a network is told of a speaker: statistics of other clips, in training and when it is tested."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vervet.evaluation.enrolled import others
from vervet.models.patches import heard, statistics
from vervet.models.vit import VisionTransformer
from vervet.training.pool import Images

BATCH = 64


def tell(images: Tensor, clips: Tensor, group: int, generator: torch.Generator) -> Tensor:
    """Tell each image the statistics of some others of its speaker: of none, one, three or all in its group.

    Fewer where a clip is in its group more than once: nobody is told of itself.

    Parameters
    ----------
    images : Tensor
        (batch, 1, n_mels, width) float32; each `group` that follow one another are of one speaker.
    clips : Tensor
        (batch,) int64, of which clip each image is.
    group : int
        At least 2.
    generator : torch.Generator
        On the images' device.

    Returns
    -------
    Tensor
        (batch, 3, n_mels), as a network's `speaker`; 0 where none is told.
    """
    found = statistics(images, heard(images)).unflatten(0, (-1, group))  # (groups, group, 3, n_mels)
    drawn = torch.randint(4, (len(found), group, 1), generator=generator, device=images.device)
    wanted = torch.where(drawn < 2, drawn, torch.where(drawn == 2, min(3, group - 1), group - 1))
    chance = torch.rand(len(found), group, group, generator=generator, device=images.device)
    same = clips.view(-1, group, 1) == clips.view(-1, 1, group)  # (groups, group, group)
    chosen = (chance.masked_fill(same, 2.0).argsort(dim=2).argsort(dim=2) < wanted) & ~same
    return torch.einsum("gij,gjsb->gisb", chosen.to(found), found).flatten(0, 1)


@torch.inference_mode()
def statistics_of(model: VisionTransformer, images: Images) -> Tensor:
    """What each clip says of its speaker: (clips, 3, values) float32 on the CPU, for a network's `speaker`."""
    batches = (images[indices] for indices in torch.arange(len(images)).split(BATCH))
    return torch.cat([model.statistics(batch, model.summary(batch)).cpu() for batch in batches])


def met(statistics: Tensor, speakers: Sequence[str], count: int, seed: int) -> Tensor:
    """Tell each clip the statistics of others by the same speaker, whatever was felt in them.

    Parameters
    ----------
    statistics : Tensor
        (clips, 3, values), of the clips; see `statistics_of`.
    speakers : sequence of str
        Who speaks in each.
    count, seed : int
        As for `others`.

    Returns
    -------
    Tensor
        (clips, 3, values) float32, as a network's `speaker`.
    """
    return torch.stack([statistics[chosen].sum(0) for chosen in others(speakers, count, seed)])
