"""One training stage: an epoch is a plain function, a checkpoint follows each, and the best on validation is kept."""

import copy
import csv
import hashlib
import io
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from vervet.config import FrontEnd, Online, Precision, Stage
from vervet.evaluation.metrics import scores
from vervet.files import write_whole
from vervet.models.checkpoint import load, save
from vervet.models.patches import heard
from vervet.models.stem import Reduce
from vervet.models.vit import VisionTransformer
from vervet.training.enrol import tell
from vervet.training.online import disturb, mix
from vervet.training.pool import Images

EVALUATION_BATCH = 64
BEGINNING = 0.05  # share of an averaged network that may be what it was before the stage


@dataclass(frozen=True)
class Side:
    """Images with all that a loss needs to know of them."""

    images: Images
    emotions: Tensor  # (len,) int64, index into the labels
    targets: Tensor | None = None  # (len, embed_dim) float32, the teacher's features
    speakers: Tensor | None = None  # (len,) int64, who speaks
    corpora: Tensor | None = None  # (len,) int64, whose recordings they are
    clips: Tensor | None = None  # (len,) int64, of which clip each is a version; each of its own where not given

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images (n, 1, n_mels, width) float32, emotions (n,), targets (n, embed_dim)."""
        return self.images[indices], self.emotions[indices], None if self.targets is None else self.targets[indices]

    def to(self, device: torch.device) -> "Side":
        """Put what batches are made of on a device."""
        targets, clips = (None if given is None else given.to(device) for given in (self.targets, self.clips))
        images, emotions = self.images.to(device), self.emotions.to(device)
        return replace(self, images=images, emotions=emotions, targets=targets, clips=clips)

    def clips_of(self, indices: Tensor) -> Tensor:
        """Of which clip each of some images is a version: (n,) int64."""
        return indices if self.clips is None else self.clips[indices]


def seed_of(*parts: object) -> int:
    """A seed for each purpose, independent of how much chance any other has used."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def usable(precision: Precision, device: torch.device) -> Precision:
    """The precision, but float32 on a processor without instructions for bfloat16, which would be many times slower."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch before 2.12 may not tell
    known = [name for name in ("avx512_bf16", "amx_bf16", "bf16") if name in capabilities]
    lacks = device.type == "cpu" and known and not any(capabilities[name] for name in known)
    return "float32" if lacks else precision


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Matrix products and convolutions in this precision if usable; weights, norms and losses stay float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=usable(precision, device) == "bfloat16")


def loss_of(
    stage: Stage,
    logits: Tensor,
    features: Tensor,
    emotions: Tensor,
    targets: Tensor | None,
) -> Tensor:
    """Cross-entropy, plus alpha times the L1 distance to the teacher's features, or either alone.

    Parameters
    ----------
    stage : Stage
        Says which terms count.
    logits : Tensor
        (batch, classes).
    features : Tensor
        (batch, embed_dim).
    emotions : Tensor
        (batch,) int64; or (batch, classes) float32, how much each counts, as it is: no label is smoothed.
    targets : Tensor or None
        (batch, embed_dim), the teacher's features; needed where `stage.alpha` is above 0.

    Returns
    -------
    Tensor
        A scalar, float32. The distance is the mean over batch and features.
    """
    loss = logits.new_zeros(())
    if stage.cross_entropy:
        smoothing = 0.0 if emotions.is_floating_point() else stage.label_smoothing
        loss = loss + F.cross_entropy(logits.float(), emotions, label_smoothing=smoothing)
    if stage.alpha > 0:
        assert targets is not None, "a stage that matches features needs the teacher's"
        loss = loss + stage.alpha * F.l1_loss(features.float(), targets)
    return loss


@torch.inference_mode()
def predict(
    model: VisionTransformer,
    images: Images,
    device: torch.device,
    precision: Precision = "float32",
    told: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits (len, classes) and features (len, embed_dim) of images, float32 on the CPU.

    `told` (len, 3, values) says of each image what the network knows of the speaker.
    """
    model.eval()
    parts = []
    for indices in torch.arange(len(images)).split(EVALUATION_BATCH):
        with autocast(device, precision):
            known = () if told is None else (told[indices].to(device),)
            logits, features = model(_trimmed(images[indices].to(device), model), *known)
        parts.append((logits.float().cpu(), features.float().cpu()))
    logits, features = zip(*parts, strict=True)
    return torch.cat(logits), torch.cat(features)


def fit(
    model: VisionTransformer,
    stage: Stage,
    name: str,
    train: Side,
    validation: Side,
    labels: tuple[str, ...],
    seed: int,
    folder: Path,
    accelerator: Accelerator,
    precision: Precision = "float32",
    online: Online | None = None,
    front_end: FrontEnd | None = None,
) -> list[dict[str, float]]:
    """Train a network through one stage, or go on from where it was stopped.

    Parameters
    ----------
    model : VisionTransformer
        Starts the stage; at the end it holds the weights of the epoch that is kept, and its BatchNorms know the images
        of training as they were before anything was done to them.
    stage : Stage
        Its settings.
    name : str
        Of the stage, for the bar and the logs.
    train, validation : Side
        What is learnt from, and what chooses the epoch where the stage keeps the best: the highest UAR, then the
        lowest loss; where it has no cross-entropy, the lowest loss. The latter may be empty where the last is kept.
    labels : tuple of str
        The emotions, in the order of the logits.
    seed : int
        Of the order of batches; each epoch has its own, so that an interrupted stage ends as an uninterrupted one.
    folder : Path
        Holds `checkpoint.safetensors`, `log.csv` and TensorBoard's events.
    accelerator : Accelerator
        The devices. Each process takes its share of every batch.
    precision : {"float32", "bfloat16"}
        Of matrix products and convolutions.
    online : Online, optional
        What is done to the images of training anew each time.
    front_end : FrontEnd, optional
        What made the images, for `online`.

    Returns
    -------
    list of dict
        A row per epoch: epoch, train_loss, validation_loss, validation_uar, lr, seconds.
    """
    device = accelerator.device
    model.to(device)
    train, validation = train.to(device), validation.to(device)
    optimizer = _optimizer(model, stage)
    checkpoint = folder / "checkpoint.safetensors"
    batches = len(_order(train, stage, 0)) // stage.batch_size
    stage = replace(stage, average=min(stage.average, BEGINNING ** (1 / (stage.epochs * batches))))
    averaged = copy.deepcopy(model) if stage.average else None
    history, kept = _resume(checkpoint, model, averaged, optimizer, device)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    loop = _Loop(
        prepared, model, averaged, optimizer, stage, train, len(labels), online or Online(), front_end, accelerator,
        precision,
    )  # fmt: skip
    log = _Log(folder, name, history) if accelerator.is_main_process else None
    with tqdm(
        total=stage.epochs * batches, initial=len(history) * batches, desc=name, unit="batch",
        disable=None if accelerator.is_main_process else True,
    ) as bar:  # fmt: skip
        for epoch in range(len(history), stage.epochs):
            started = time.perf_counter()
            lr = learning_rate(stage, epoch)
            train_loss = loop.epoch(lr, seed_of(seed, name, epoch), bar)
            if not train_loss < float("inf"):
                raise ValueError(f"stage {name}, epoch {epoch}: the loss is {train_loss}; lower {name}.lr")
            validation_loss, uar = _validate(averaged or model, stage, validation, labels, device, precision)
            row = {"epoch": epoch, "train_loss": train_loss, "validation_loss": validation_loss, "validation_uar": uar}
            history.append(row | {"lr": lr, "seconds": time.perf_counter() - started})
            if epoch == kept_epoch(history, stage):
                source = averaged or model
                kept = {key: value.detach().clone() for key, value in source.state_dict().items()}
            if log:
                _save(checkpoint, model, averaged, optimizer, kept, history)
                log.add(history)
            accelerator.wait_for_everyone()
    model.load_state_dict(kept)
    loop.settle(seed_of(seed, name, "settle"))
    accelerator.free_memory()
    return history


def learning_rate(stage: Stage, epoch: int) -> float:
    """The rate of an epoch, counted from 0."""
    if stage.schedule == "cosine":
        return stage.lr * (1 + math.cos(math.pi * epoch / stage.epochs)) / 2
    return stage.lr * stage.lr_gamma ** (epoch // stage.lr_step)


def _optimizer(model: VisionTransformer, stage: Stage) -> torch.optim.Optimizer:
    gpu = model.cls.is_cuda
    lr = torch.tensor(stage.lr, device=model.cls.device) if gpu else stage.lr  # where a graph may find it changed
    if not stage.weight_decay:
        return torch.optim.Adam(model.parameters(), lr=lr, fused=True, capturable=gpu)
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]  # biases, norms, the CLS token
    groups = [{"params": matrices, "weight_decay": stage.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, fused=True, capturable=gpu)


def corpus_shares(corpora: Tensor | None, power: float) -> Tensor | None:
    """How often each clip is drawn in an epoch: (clips,) int64 -> (clips,) float32, 1 in the largest corpus.

    A corpus is drawn in proportion to its size to this power: 1 leaves all as they are, 0 makes them equal.
    """
    if corpora is None or power == 1:
        return None
    counts = corpora.bincount().float()
    return (counts / counts.max()).pow(power - 1)[corpora]


def class_weights(
    emotions: Tensor, classes: int, shares: Tensor | None = None, corpora: Tensor | None = None
) -> Tensor:
    """How much each emotion counts where a clip is trained on, so that within each corpus all count the same.

    Parameters
    ----------
    emotions : Tensor
        (clips,) int64.
    classes : int
        Number of emotions.
    shares : Tensor, optional
        (clips,) float32, how often each clip is drawn; once, if not given.
    corpora : Tensor, optional
        (clips,) int64, whose recordings they are; of one corpus, if not given.

    Returns
    -------
    Tensor
        (clips, classes) float32, inverse to how often the emotion is drawn from the clip's corpus, 0 where never; over
        what is drawn of a corpus the mean is 1.

    Notes
    -----
    If emotions counted the same over all corpora together, one that a single small corpus has would outweigh all others
    there, and be heard in everything that sounds like it.
    """
    corpora = torch.zeros_like(emotions) if corpora is None else corpora.to(emotions.device)
    drawn = torch.ones_like(emotions, dtype=torch.float32) if shares is None else shares
    counts = torch.zeros(int(corpora.max()) + 1, classes, device=emotions.device)
    counts.index_put_((corpora, emotions), drawn, accumulate=True)
    weights = counts.sum(1, keepdim=True) / ((counts > 0).sum(1, keepdim=True) * counts)
    return torch.where(counts > 0, weights, 0.0)[corpora]


def kept_epoch(history: list[dict[str, float]], stage: Stage) -> int:
    """The epoch whose weights are kept: the last, or the one that validation prefers, of equal ones the later."""
    if stage.keep == "last":
        return int(history[-1]["epoch"])
    uar = 1.0 if stage.cross_entropy else 0.0
    chosen = max(history, key=lambda row: (uar * row["validation_uar"], -row["validation_loss"], row["epoch"]))
    return int(chosen["epoch"])


class _Loop:
    """Goes through the training side epoch by epoch.

    Of networks this small a GPU computes a batch faster than its hundreds of kernels can be launched one by one. After
    a few batches the next is recorded as a CUDA graph, and launched as a whole from then on.
    """

    FIRST = 3  # batches before the recording: libraries and the optimizer set themselves up
    SETTLING = 250  # batches at most

    def __init__(
        self, prepared, model: VisionTransformer, averaged: VisionTransformer | None, optimizer, stage: Stage,
        train: Side, classes: int, online: Online, front_end: FrontEnd | None, accelerator: Accelerator,
        precision: Precision,
    ) -> None:  # fmt: skip
        self.prepared, self.model, self.averaged, self.optimizer = prepared, model, averaged, optimizer
        self.stage, self.train, self.classes, self.accelerator = stage, train, classes, accelerator
        self.online, self.front_end = online, front_end
        self.precision: Precision = precision
        self.device = accelerator.device
        self.generator = torch.Generator(self.device)
        shares = corpus_shares(train.corpora, stage.corpus_power)
        shares = None if shares is None else shares.to(self.device)
        self.weights: Tensor | None = None  # (clips, classes), how much each emotion counts
        if stage.balanced:
            self.weights = class_weights(train.emotions, classes, shares, train.corpora).to(self.device)
        self.group = stage.enrol or 1  # clips that stay together
        share = len(range(stage.batch_size // self.group)[accelerator.process_index :: accelerator.num_processes])
        self.indices = torch.zeros(share * self.group, dtype=torch.long, device=self.device)
        self.total = torch.zeros((), device=self.device)
        self.done = 0  # batches since training began or went on
        self.stream = torch.cuda.Stream() if self.device.type == "cuda" else None
        self.recorded = self.stream is not None and accelerator.num_processes == 1 and not online.mixup
        self.graph: torch.cuda.CUDAGraph | None = None

    def epoch(self, lr: float, seed: int, bar: tqdm) -> float:
        """Go once through the training side in random order: the mean loss.

        The last, incomplete batch is left to another epoch.
        """
        number, many = self.accelerator.process_index, self.accelerator.num_processes
        self.prepared.train()
        self.generator.manual_seed(seed_of(seed, "online", number))
        torch.manual_seed(seed_of(seed, "dropout", number))
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        self.total.zero_()
        order = _order(self.train, self.stage, seed).reshape(-1, self.stage.batch_size // self.group, self.group)
        order = order[:, number::many].flatten(1).to(self.device)  # (batches, this process's share)
        if self.stream:
            self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for count, indices in enumerate(order, 1):
                self.indices.copy_(indices)
                self._run()
                bar.update()
                if count % 20 == 0 and not bar.disable:
                    bar.set_postfix(loss=f"{float(self.total) / count:.3f}", lr=f"{lr:.0e}")
        if self.stream:
            torch.cuda.current_stream().wait_stream(self.stream)
        mean = self.accelerator.reduce(self.total / len(order), "mean")
        assert isinstance(mean, Tensor)
        return float(mean)

    @torch.no_grad()
    def settle(self, seed: int) -> None:
        """Find the statistics of BatchNorms anew, from images that nothing is done to.

        The running ones are of the last batches, of disturbed images, and were found with other weights.
        """
        reduce, size = self.model.reduce, self.stage.batch_size
        if reduce is None or reduce.frozen:
            return
        self.model.train()
        self.generator.manual_seed(seed)
        batches = _order(self.train, self.stage, seed).to(self.device).split(size)[: self.SETTLING]
        for number, indices in enumerate(batches, 1):
            images, _, _ = self.train.batch(indices)
            clips = self.train.clips_of(indices)
            told = tell(images, clips, self.stage.enrol, self.generator) if self.stage.enrol else None
            reduce.momentum = 1 / number  # so that the running mean is the mean of all
            self.model.tokens(_trimmed(images, self.model), speaker=told)
        reduce.momentum = Reduce.momentum
        self.model.eval()

    def _run(self) -> None:
        """Train on the batch of `indices`."""
        self.done += 1
        if self.recorded and self.graph is None and self.done > self.FIRST:
            self.graph = torch.cuda.CUDAGraph()
            self.graph.register_generator_state(self.generator)
            with torch.cuda.graph(self.graph, stream=self.stream):
                self._step()
        if self.graph is None:
            self._step()
        else:
            self.graph.replay()

    def _step(self) -> None:
        stage, online = self.stage, self.online
        images, emotions, targets = self.train.batch(self.indices)
        if online != Online():
            images = disturb(images, online, self.generator, self.group, self.front_end)
        clips = self.train.clips_of(self.indices)
        told = (tell(images, clips, stage.enrol, self.generator),) if stage.enrol else ()
        if online != Online() or self.weights is not None:
            emotions = self._shares(emotions)
        if online != Online():
            images, emotions, targets = mix(images, emotions, online, self.generator, targets, stage.enrol)
        with autocast(self.device, self.precision):
            logits, features = self.prepared(_trimmed(images, self.model), *told)
        loss = loss_of(stage, logits, features, emotions, targets)
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averaged is not None:
            _average(self.averaged, self.model, stage.average)
        self.total += loss.detach()

    def _shares(self, emotions: Tensor) -> Tensor:
        """Emotions of the batch of `indices` (batch,) -> how much each counts (batch, classes), labels smoothed."""
        smoothing = self.stage.label_smoothing
        shares = F.one_hot(emotions, self.classes) * (1 - smoothing) + smoothing / self.classes
        return shares if self.weights is None else shares * self.weights[self.indices]


@torch.no_grad()
def _average(averaged: VisionTransformer, model: VisionTransformer, decay: float) -> None:
    """Move the running mean of the weights a little towards the weights."""
    get_ema_multi_avg_fn(decay)(list(averaged.parameters()), list(model.parameters()), 0)
    for mean, now in zip(averaged.buffers(), model.buffers(), strict=True):
        mean.copy_(now)  # what BatchNorm has seen is a running mean already


def _trimmed(images: Tensor, model: VisionTransformer) -> Tensor:
    """Without the columns at the end that are black in all images, where a network masks them and needs no others.

    A GPU would have to wait for the answer to how many these are: they stay.
    """
    if not (model.config.mask_padding and model.elastic) or images.is_cuda:
        return images
    numbers = torch.arange(1, images.shape[-1] + 1, device=images.device)
    return images[..., : max(1, int((heard(images) * numbers).max()))]


def _order(train: Side, stage: Stage, seed: int) -> Tensor:
    """Indices of the training side in random order, as many as fill whole batches.

    Clips of small corpora are in it more than once where the stage says so. Where clips are enrolled, each
    `stage.enrol` that follow one another are of one speaker; the last ones of a speaker are joined by some that are
    there already.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train.images), generator=generator)
    shares = corpus_shares(train.corpora, stage.corpus_power)
    if shares is not None:
        assert train.corpora is not None
        order = _repeated(order, train.corpora, shares, generator)
    if stage.enrol:
        assert train.speakers is not None, "a stage that enrols needs to know who speaks"
        groups = []
        for speaker in train.speakers.unique():
            own = order[train.speakers[order] == speaker]
            filled = torch.arange(len(own) + -len(own) % stage.enrol) % len(own)
            groups.append(own[filled].reshape(-1, stage.enrol))
        every = torch.cat(groups)
        order = every[torch.randperm(len(every), generator=generator)].flatten()
    elif shares is not None:
        order = order[torch.randperm(len(order), generator=generator)]
    return order[: len(order) - len(order) % stage.batch_size]


def _repeated(order: Tensor, corpora: Tensor, shares: Tensor, generator: torch.Generator) -> Tensor:
    """Each corpus one after another, its clips as often as its share says: all of them in turn, in new order."""
    drawn = []
    for corpus in corpora.unique():
        own = order[corpora[order] == corpus]
        wanted = round(len(own) * float(shares[own[0]]))
        passes = [own, *(own[torch.randperm(len(own), generator=generator)] for _ in range(wanted // len(own)))]
        drawn.append(torch.cat(passes)[:wanted])
    return torch.cat(drawn)


def _validate(
    model, stage: Stage, side: Side, labels: tuple[str, ...], device: torch.device, precision: Precision
) -> tuple[float, float]:
    """Loss and UAR of the validation side; NaN where it is empty."""
    if not len(side.images):
        return math.nan, math.nan
    logits, features = predict(model, side.images, device, precision)
    targets = None if side.targets is None else side.targets.cpu()
    loss = float(loss_of(stage, logits, features, side.emotions.cpu(), targets))
    true = [labels[i] for i in side.emotions.tolist()]
    return loss, scores(true, [labels[i] for i in logits.argmax(1).tolist()], labels).uar


def _save(
    path: Path, model: VisionTransformer, averaged: VisionTransformer | None, optimizer, kept: dict[str, Tensor],
    history: list,
) -> None:  # fmt: skip
    """The network now and as it is to be kept, Adam's moments, and the log, in one file."""
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    if averaged is not None:
        tensors |= {f"averaged.{key}": value for key, value in averaged.state_dict().items()}
    tensors |= {f"kept.{key}": value for key, value in kept.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{key}": value for key, value in state.items()}
    save(path, tensors, {"history": history})


def _resume(
    path: Path, model: VisionTransformer, averaged: VisionTransformer | None, optimizer, device: torch.device
) -> tuple[list, dict[str, Tensor]]:
    """Take up the last checkpoint, if there is one; Adam's state is put back parameter by parameter."""
    if not path.exists():
        return [], {}
    tensors, data = load(path)
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "averaged": {}, "kept": {}, "adam": {}}
    for key, value in tensors.items():
        group, _, rest = key.partition(".")
        groups[group][rest] = value.to(device)
    model.load_state_dict(groups["model"])
    if averaged is not None:
        averaged.load_state_dict(groups["averaged"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in groups["adam"].items():
        index, _, rest = key.partition(".")
        state.setdefault(int(index), {})[rest] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return data["history"], groups["kept"]


class _Log:
    """The history as CSV, rewritten whole each time, and as TensorBoard's events."""

    def __init__(self, folder: Path, name: str, history: list[dict[str, float]]):
        self.folder, self.name = folder, name
        self.events = SummaryWriter(str(folder / "tensorboard"), purge_step=len(history))

    def add(self, history: list[dict[str, float]]) -> None:
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, history[0])
        table.writeheader()
        table.writerows(history)
        write_whole(self.folder / "log.csv", text.getvalue())
        for key, value in history[-1].items():
            self.events.add_scalar(f"{self.name}/{key}", value, int(history[-1]["epoch"]))
        self.events.flush()
