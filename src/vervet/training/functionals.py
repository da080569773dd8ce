"""The last stage: a linear head on the functionals of the training clips."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from vervet.config import Functionals
from vervet.models.functionals import FunctionalsHead, adapt, clip_statistics, excess
from vervet.models.patches import heard
from vervet.training.enrol import met
from vervet.training.linear import fit_told
from vervet.training.pool import Images

BATCH = 64
START_CLIPS = 100  # so many clips the mean and deviation of a model that training starts from count for


def fit_functionals(
    head: FunctionalsHead,
    images: Images,
    emotions: Tensor,
    speakers: Sequence[str],
    settings: Functionals,
    balanced: bool,
    seed: int,
    start: FunctionalsHead | None = None,
    shares: Tensor | None = None,
    corpora: Tensor | None = None,
    factors: Sequence[float] = (1.0,),
    groups: Sequence[Hashable] = (),
) -> tuple[float, float]:
    """Fit the head that reads functionals.

    Parameters
    ----------
    head : FunctionalsHead
        Its `bels` and `comb` are set; the rest is set here.
    images : Images
        Of the training clips.
    emotions : Tensor
        (clips,) int64.
    speakers : sequence of str
        Who speaks in each clip.
    settings : Functionals
        Strength of the penalty, and of how many other clips of its speaker each clip is told.
    balanced : bool
        Whether every emotion of a corpus counts the same, however many clips it has.
    seed : int
        Decides which other clips those are.
    start : FunctionalsHead, optional
        Of the model that training starts from, for the same emotions: its mean and deviation count for 100 clips
        beside the training clips, and the penalty is on what its weights are changed by.
    shares : Tensor, optional
        (clips,) float32, how much each clip counts in mean, deviation and loss; all the same, if not given.
    corpora : Tensor, optional
        (clips,) int64, whose recordings they are; of one corpus, if not given.
    factors : sequence of float, optional
        By which the penalty may be multiplied, see `vervet.training.linear.choose_l2`.
    groups : sequence of hashable, optional
        (clips,) Those that are left out together to choose one of several factors, from `left_out_together`.

    Returns
    -------
    tuple of float
        The loss, with the penalty; and the strength of the penalty.
    """
    with torch.no_grad():
        batches = torch.arange(len(images)).split(BATCH)
        bar = tqdm(batches, desc="functionals", unit="batch", disable=None)
        found = torch.cat([head.summed(batch, heard(batch)) for batch in map(images.__getitem__, bar)])
        counts = torch.ones(len(found)).to(found) if shares is None else shares.to(found)
        mean = torch.einsum("n,nf->f", counts / counts.sum(), found)
        deviation = torch.einsum("n,nf->f", counts / counts.sum(), (found - mean).square()).sqrt().clamp(min=1e-3)
        if start is None:
            head.linear.weight.zero_()
            head.linear.bias.zero_()
        else:
            start = start.to(found.device)
            head.linear.load_state_dict(start.linear.state_dict())
            own = len(found) / (len(found) + START_CLIPS)
            mean = torch.lerp(start.mean, mean, own)
            deviation = torch.lerp(start.deviation.square(), deviation.square(), own).sqrt()
        head.mean.copy_(mean)
        head.deviation.copy_(deviation)
        clips = head.scaled(found)
        every = clip_statistics(clips)  # (clips, 3, 3432)
        told = torch.cat([adapt(clips, met(every, speakers, count, seed)) for count in settings.told])
        told /= excess(told)  # what is unusual has a smaller share in the answer, and a smaller say here
    counting = {"balanced": balanced, "shares": shares, "corpora": corpora}
    return fit_told(head.linear, told, emotions, groups, settings.l2, factors, **counting)
