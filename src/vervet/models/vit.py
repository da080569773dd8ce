"""The vision transformer. Teacher and student are two settings of this one model."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vervet.config import Vit
from vervet.models.functionals import FunctionalsHead, clip_statistics
from vervet.models.patches import (
    PatchEmbedding,
    TimeConvs,
    coordinate_planes,
    heard,
    sinusoidal_positions,
    standardise,
    statistics,
)
from vervet.models.stem import ConvStem, Reduce


class Attention(nn.Module):
    """Multi-head self-attention on normalised tokens; qkv without bias, output projection with."""

    def __init__(self, dim: int, heads: int, dim_head: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.project = nn.Linear(heads * dim_head, dim)

    def split(self, x: Tensor, asking: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, tokens, dim) -> query of the first `asking` tokens, key, value: (batch, heads, tokens, dim_head)."""
        normed = self.norm(x)
        if asking is None:
            parts = self.qkv(normed).chunk(3, dim=-1)
        else:
            inner = self.project.in_features
            query = F.linear(normed[:, :asking], self.qkv.weight[:inner])
            parts = (query, *F.linear(normed, self.qkv.weight[inner:]).chunk(2, dim=-1))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        return query, key, value

    def forward(self, x: Tensor, asking: int | None = None, mask: Tensor | None = None) -> Tensor:
        """(batch, tokens, dim) -> (batch, tokens, dim), or what the first `asking` tokens take from all.

        The mask (batch, 1, 1, tokens) is added to the scores: minus infinity where a token is not to be looked at.
        """
        query, key, value = self.split(x, asking)
        if x.is_cuda:
            y = F.scaled_dot_product_attention(query, key, value, mask)  # (batch, heads, tokens, dim_head)
        else:  # on CPUs the fused kernel trains at a third of the speed of plain products: 129 tokens are few
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (batch, heads, tokens, tokens)
            if mask is not None:
                scores = scores + mask
            y = scores.softmax(-1).to(value.dtype) @ value
        return self.project(y.transpose(1, 2).flatten(2))

    def cls_weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much the CLS token looks at each patch: (batch, tokens, dim) -> (batch, heads, tokens - 1)."""
        query, key, _ = self.split(x, asking=1)
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5  # (batch, heads, 1, tokens)
        if mask is not None:
            scores = scores + mask
        return scores.softmax(-1)[:, :, 0, 1:]


class FeedForward(nn.Sequential):
    """LayerNorm, Linear, GELU, Linear."""

    def __init__(self, dim: int, hidden: int):
        super().__init__(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: Vit):
        super().__init__()
        self.attention = Attention(config.embed_dim, config.heads, config.dim_head)
        self.feed_forward = FeedForward(config.embed_dim, config.mlp_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, asking: int | None = None, mask: Tensor | None = None) -> Tensor:
        """(batch, tokens, dim) -> (batch, tokens, dim), or the first `asking` tokens alone: the others cost less."""
        x = x[:, :asking] + self.dropout(self.attention(x, asking, mask))
        return x + self.dropout(self.feed_forward(x))


class VisionTransformer(nn.Module):
    """Log-Mel image to emotion: optional stem, patches, blocks, CLS pooling, linear head; perhaps a second head.

    Parameters
    ----------
    config : Vit
        Shape of the network; `vervet.config` holds the presets `student`, `teacher` and `teacher-large`.
    classes : int
        Number of emotions.

    Notes
    -----
    Kim & Lee (IEEE Access 2024). The feature that knowledge transfer matches is the CLS token after the last LayerNorm.
    """

    def __init__(self, config: Vit, classes: int):
        super().__init__()
        self.config = config
        dim, (rows, columns) = config.embed_dim, config.grid
        self.stem = ConvStem(config.stem) if config.stem else nn.Identity()
        channels = 1
        self.register_buffer("planes", None, persistent=False)
        self.register_buffer("sinusoids", None, persistent=False)
        self.positions = None
        if config.position == "ice":
            self.planes = coordinate_planes(*config.image)
            channels = 3
        elif config.position == "sinusoidal":
            self.sinusoids = sinusoidal_positions(rows * columns, dim)
        elif config.position == "learned":
            self.positions = nn.Parameter(0.02 * torch.randn(rows * columns, dim))
        self.reduce, patch = None, config.patch
        if config.reduce:
            self.reduce = Reduce(channels, config.reduce)
            channels, patch = config.reduce[-1], (config.patch[0] >> len(config.reduce), 1)
        self.patches = PatchEmbedding(channels, patch, dim, config.patch_norm)
        self.time_convs = TimeConvs(config.time_convs, dim) if config.time_convs else None
        self.cls = nn.Parameter(torch.randn(dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)
        self.functionals = FunctionalsHead(classes, config.image[0], config.share) if config.functionals else None

    @property
    def last_block(self) -> Block:
        """The block whose CLS token the head reads."""
        block = self.blocks[-1]
        assert isinstance(block, Block)
        return block

    @property
    def elastic(self) -> bool:
        """Whether black columns at the end may be left out of an image: nothing knows where a column stands."""
        config = self.config
        by_column = config.patch == (config.image[0], 1) and config.position == "none" and not config.stem
        return by_column and (config.mask_padding or not (config.time_convs or config.reduce))

    def tokens(
        self, images: Tensor, narrow: bool = False, speaker: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """What enters the first block, and what its attention leaves out.

        Parameters
        ----------
        images : Tensor
            (batch, 1, height, width).
        narrow : bool, optional
            Whether images may lack black columns at their end, which an elastic network does without. One that masks
            padding always may: its answer is the same.
        speaker : Tensor, optional
            (batch, 3, values), the sum of the `statistics` of other clips of the speaker, if the network normalises.

        Returns
        -------
        tuple of Tensor
            (batch, 1 + patches, dim), CLS first; and, where padding is masked, what is added to the scores of
            attention, (batch, 1, 1, 1 + patches): minus infinity for padding.
        """
        fits = tuple(images.shape[1:]) == (1, *self.config.image)
        narrow = (narrow or self.config.mask_padding) and self.elastic
        if not fits and not (narrow and images.shape[1:3] == (1, self.config.image[0])):
            raise ValueError(
                f"images must be (batch, 1, {', '.join(map(str, self.config.image))}), not {tuple(images.shape)}"
            )
        x, columns = images, heard(images)
        if self.config.normalise != "none":
            bands = None if speaker is None else speaker[:, :, : x.shape[2]]
            x = standardise(x, columns, self.config.normalise == "deviation", bands)
        x = self.stem(x)
        if self.planes is not None:
            planes = self.planes.to(x.dtype).expand(x.shape[0], -1, -1, -1)  # (batch, 2, height, width)
            x = torch.cat([x, planes], dim=1)
        if self.reduce is not None:
            x, columns = self.reduce(x, columns)
        x = self.patches(x)
        if self.time_convs is not None:
            x = self.time_convs(x, columns)
        if self.sinusoids is not None:
            x = x + self.sinusoids
        if self.positions is not None:
            x = x + self.positions
        x = torch.cat([self.cls.to(x.dtype).expand(x.shape[0], 1, -1), x], dim=1)
        return x, _masked(columns, images.dtype) if self.config.mask_padding else None

    def features(self, images: Tensor, speaker: Tensor | None = None) -> Tensor:
        """(batch, 1, height, width) -> the CLS feature after the last LayerNorm, (batch, embed_dim)."""
        # Of the last block only the CLS token is read, so only it is computed: a quarter less in the student.
        tokens, mask = self.tokens(images, speaker=speaker)
        for block in self.blocks[:-1]:
            tokens = block(tokens, mask=mask)
        return self.norm(self.last_block(tokens, asking=1, mask=mask)[:, 0])

    def every_token(self, images: Tensor) -> Tensor:
        """(batch, 1, height, width) -> all tokens after the last LayerNorm, (batch, 1 + patches, embed_dim)."""
        tokens, mask = self.tokens(images)
        for block in self.blocks:
            tokens = block(tokens, mask=mask)
        return self.norm(tokens)

    def forward(self, images: Tensor, speaker: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(batch, 1, height, width) in [0, 1] -> logits (batch, classes) and features (batch, embed_dim)."""
        features = self.features(images, speaker)
        return self.logits(features, self.summary(images), speaker), features

    def summary(self, images: Tensor) -> Tensor | None:
        """What the second head reads: (batch, 1, height, width) -> (batch, functionals); None if there is none."""
        return None if self.functionals is None else self.functionals.standardised(images, heard(images))

    def logits(self, features: Tensor, summary: Tensor | None, speaker: Tensor | None = None) -> Tensor:
        """CLS features (batch, embed_dim), `summary` of the same images -> (batch, classes), a mean of both heads."""
        logits = self.head(features)
        if self.functionals is None:
            return logits
        assert summary is not None, "the second head needs the summary"
        known = None if speaker is None else speaker[:, :, self.config.image[0] :]
        others, share = self.functionals(summary, known)
        return logits + (others - logits) * share

    def statistics(self, images: Tensor, summary: Tensor | None) -> Tensor:
        """What clips say of their speakers: images and their `summary` -> (batch, 3, values), to be added up.

        The values are the bands and, with a second head, the functionals; see `statistics` and `clip_statistics`.
        """
        bands = statistics(images, heard(images))
        return bands if summary is None else torch.cat([bands, clip_statistics(summary)], dim=2)

    def attention(self, images: Tensor) -> Tensor:
        """Where each block looked: (batch, 1, height, width) -> (batch, depth, heads, patches), rows sum below 1."""
        (x, mask), weights = self.tokens(images), []
        for block in self.blocks:
            assert isinstance(block, Block)
            weights.append(block.attention.cls_weights(x, mask))
            x = block(x, mask=mask)
        return torch.stack(weights, dim=1)


def _masked(columns: Tensor, dtype: torch.dtype) -> Tensor:
    """Which tokens are sound (batch, patches) -> what is added to scores (batch, 1, 1, 1 + patches); CLS is seen."""
    out = torch.zeros(columns.shape[0], 1 + columns.shape[1], dtype=dtype, device=columns.device)
    out[:, 1:] = torch.where(columns, 0.0, -torch.inf)
    return out[:, None, None]
