"""Every setting of a model and its training, with its unit and its default.

The defaults are the system of Kim & Lee (IEEE Access 2024). A recipe file (YAML) names only what it changes; a key it
misspells is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")
Position = Literal["none", "learned", "sinusoidal", "ice"]
Precision = Literal["float32", "bfloat16"]
Interpolation = Literal["nearest", "bilinear", "area"]


VERSIONS = ("original", "speed", "noise", "shift")  # of a clip: as it was recorded, and copies
STAGES = ("teacher", "matching", "student", "functionals")  # in the order in which they train
FULL_SCALE_DB = 140.0  # below a sine of amplitude 1 is 0 of an image that keeps the level


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class FrontEnd:
    """Waveform to log-Mel image."""

    sampling_rate: int = 16_000  # Hz
    duration_s: float = 4.0  # shorter clips are zero-padded at the end, longer ones cut
    n_fft: int = 1024  # samples
    win_length: int = 512  # samples, Hamming
    hop_length: int = 64  # samples
    n_mels: int = 128  # bands, Slaney scale and area, from lowest_hz to highest_hz
    lowest_hz: float = 0.0
    highest_hz: float = 0.0  # 0: half the sampling rate
    top_db: float = 80.0  # the floor, below the clip's maximum
    reference: Literal["clip", "full scale"] = "clip"  # what 1 stands for: the clip's maximum, or a sine of amplitude 1
    width: int = 128  # columns of the image; equal to `frames` means no interpolation
    interpolation: Interpolation = "area"  # over time: a column is the mean of the frames it stands for

    def __post_init__(self) -> None:
        _require(self.win_length <= self.n_fft, "win_length must not exceed n_fft")
        _require(self.win_length % 2 == 0, "win_length must be even")
        sizes = (self.sampling_rate, self.win_length, self.hop_length, self.n_mels, self.width)
        _require(min(sizes) > 0, "sizes must be positive")
        _require(self.duration_s > 0 and self.top_db > 0, "duration_s and top_db must be positive")
        samples = self.duration_s * self.sampling_rate
        _require(samples >= self.win_length, f"duration_s is {samples:g} samples, shorter than win_length")
        low, high = self.band_hz
        _require(0 <= low < high <= self.sampling_rate / 2, f"bands from {low:g} to {high:g} Hz cannot be heard")

    @property
    def band_hz(self) -> tuple[float, float]:
        """From where to where there are bands."""
        return self.lowest_hz, self.highest_hz or self.sampling_rate / 2

    @property
    def range_db(self) -> float:
        """How many dB lie between 0 and 1 of an image."""
        return self.top_db if self.reference == "clip" else FULL_SCALE_DB

    @property
    def samples(self) -> int:
        """Samples of one image."""
        return round(self.sampling_rate * self.duration_s)

    @property
    def frames(self) -> int:
        """Frames of the centred STFT, before interpolation."""
        return 1 + self.samples // self.hop_length


@dataclass(frozen=True)
class Online:
    """What is done to an image anew each time it is trained on; nothing by default."""

    stretch: float = 0.0  # the time axis is scaled by exp(u), u uniform in [-stretch, stretch]
    warp: float = 0.0  # the frequency axis likewise: another length of the vocal tract
    colour_db: float = 0.0  # a smooth curve over the bands is added, of at most this: other microphones and rooms
    noise: float = 0.0  # probability of steady noise; its level, 20 to 60 dB below the loudest point, varies by band
    hiss: float = 0.0  # probability of steady noise coloured like the voice itself, 10 to 50 dB below its loud moments
    band_limit: float = 0.0  # probability that the lowest and highest bands are black: telephones and codecs
    time_mask: int = 0  # columns blackened, at most; drawn twice
    band_mask: int = 0  # bands that get their mean over the clip, at most; drawn twice
    mixup: float = 0.0  # parameter of the Beta distribution by which two images are mixed; 0 mixes none

    def __post_init__(self) -> None:
        _require(all(value >= 0 for value in dataclasses.astuple(self)), "settings of online must not be negative")
        chances = max(self.noise, self.hiss, self.band_limit)
        _require(chances <= 1, "online.noise, online.hiss and online.band_limit are probabilities")
        _require(max(self.stretch, self.warp) <= 1, "online.stretch and online.warp, logarithms of factors, end at 1")


@dataclass(frozen=True)
class Augment:
    """The versions that `pool` makes of every clip, `original` always among them; and what is done to them later."""

    speeds: tuple[float, ...] = (0.8, 0.9, 1.1, 1.2)  # one is drawn per clip; pitch is kept
    noise_sigma: float = 0.005  # of full scale; white, added after padding
    noise_relative: bool = False  # of each clip's peak instead
    shift_s: float = 1.25  # the clip starts this much later, what leaves the window is cut
    versions: tuple[str, ...] = VERSIONS
    online: Online = field(default_factory=Online)

    def __post_init__(self) -> None:
        for version in self.versions:
            _require(version in VERSIONS, f"unknown version {version!r}; known: {', '.join(VERSIONS)}")
        _require(self.versions[:1] == ("original",), "versions must begin with 'original'")
        _require(len(set(self.versions)) == len(self.versions), "versions must not repeat")
        _require(all(speed > 0 for speed in self.speeds) and len(self.speeds) > 0, "speeds must be positive")
        _require(min(self.noise_sigma, self.shift_s) >= 0, "noise_sigma and shift_s must not be negative")


@dataclass(frozen=True)
class Vit:
    """Shape of one network."""

    depth: int = 3  # blocks
    heads: int = 5
    dim_head: int = 64
    embed_dim: int = 256
    mlp_dim: int = 256
    image: tuple[int, int] = (128, 128)  # (Mel bands, columns)
    patch: tuple[int, int] = (128, 1)  # (128, 1) vertical, (16, 16) square, (1, 128) horizontal
    reduce: tuple[int, ...] = ()  # channels of convolutions before the patches; see `vervet.models.stem.Reduce`
    position: Position = "none"
    stem: tuple[int, ...] = ()  # channels of the convolutional stem between its one-channel ends; empty for none
    normalise: Literal["none", "mean", "deviation"] = "none"  # of each band over the columns with sound, clip by clip
    mask_padding: bool = False  # leave black columns out of attention
    patch_norm: bool = True  # LayerNorm on the pixels of each patch, before they are projected
    time_convs: int = 0  # depthwise convolutions over five columns, before the blocks
    dropout: float = 0.0  # of attention's and feed-forward's outputs
    functionals: bool = False  # a second, linear head on statistics of the image; the stage `functionals` adds it
    share: float = 0.4  # of that head in the answer about a stranger

    def __post_init__(self) -> None:
        by_column = self.patch == (self.image[0], 1)
        columns_only = self.mask_padding or self.time_convs or self.reduce
        _require(by_column or not columns_only, "mask_padding, time_convs and reduce need patches that are columns")
        _require(self.image[0] % 2 ** len(self.reduce) == 0, f"reduce halves {self.image[0]} bands too often")
        _require(self.time_convs >= 0 and 0 <= self.dropout < 1, "time_convs and dropout must be in their ranges")
        sizes = (self.depth, self.heads, self.dim_head, self.embed_dim, self.mlp_dim, *self.reduce, *self.stem)
        _require(min(sizes) > 0, "sizes must be positive")
        for side, patch, name in zip(self.image, self.patch, ("height", "width"), strict=True):
            _require(patch > 0 and side % patch == 0, f"patch {name} {patch} does not divide image {name} {side}")
        _require(self.embed_dim % 2 == 0, "embed_dim must be even")
        _require(self.image[0] % 32 == 0 or not self.functionals, "functionals need a multiple of 32 bands")
        _require(0 <= self.share <= 1, "share must be between 0 and 1")

    @property
    def grid(self) -> tuple[int, int]:
        """Patches down and across."""
        across = self.image[1] // self.patch[1]
        for _ in self.reduce[:2]:
            across = (across + 1) // 2
        return self.image[0] // self.patch[0], across


STEM = (16, 32, 64, 32, 16)
NETWORKS = {
    "student": Vit(),
    "teacher": Vit(depth=6, position="ice", stem=STEM),
    "teacher-large": Vit(depth=12, heads=12, position="ice", stem=STEM),
    "vervet": Vit(  # not the paper's: the student of the recipes `vervet` and `vervet-small`
        depth=2, image=(128, 251), reduce=(16, 32, 64, 64), normalise="mean", mask_padding=True, time_convs=2,
        patch_norm=False, functionals=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One of the three training stages."""

    epochs: int = 50
    batch_size: int = 4
    lr: float = 1e-4  # Adam
    lr_step: int = 10  # epochs between two decays
    lr_gamma: float = 0.5
    alpha: float = 0.0  # weight of the L1 distance to the teacher's feature; the other term is cross-entropy
    cross_entropy: bool = True  # off: the distance alone
    keep: Literal["last", "best"] = "last"  # whose weights: of the last epoch, or of the one that validation prefers
    schedule: Literal["step", "cosine"] = "step"  # cosine: from lr to 0 over the epochs, without lr_step and lr_gamma
    weight_decay: float = 0.0  # decoupled, of weight matrices
    label_smoothing: float = 0.0  # share of the target spread over all emotions
    balanced: bool = False  # within a corpus every emotion counts the same, however many clips it has
    enrol: int = 0  # clips of one speaker that stand together in a batch; each is told the statistics of some others
    corpus_power: float = 1.0  # of several corpora each is drawn by its size to this power: below 1, small ones repeat
    # above 0, and from a base: the head alone is fitted; half of it times the squared change of its weights is added
    head_l2: float = 0.0
    # then the penalties of both heads are multiplied by one of these: with which clips left out are answered best
    l2_factors: tuple[float, ...] = (1.0,)
    average: float = 0.0  # decay, per batch, of the running mean of the weights that is validated and kept; 0: none

    def __post_init__(self) -> None:
        _require(min(self.epochs, self.batch_size, self.lr_step) > 0, "epochs, batch_size and lr_step must be positive")
        _require(self.lr > 0 and self.lr_gamma > 0, "lr and lr_gamma must be positive")
        _require(self.alpha >= 0, "alpha must not be negative")
        _require(self.cross_entropy or self.alpha > 0, "a stage needs cross_entropy or alpha above 0")
        _require(min(self.weight_decay, self.head_l2) >= 0, "weight_decay and head_l2 must not be negative")
        _require(
            self.enrol == 0 or (self.enrol > 1 and self.batch_size % self.enrol == 0),
            "enrol is 0, or 2 or more and a divisor of batch_size",
        )
        _require(len(self.l2_factors) > 0 and min(self.l2_factors) > 0, "l2_factors are one or more, above 0")
        _require(0 <= self.corpus_power <= 1, "corpus_power must be in [0, 1]")
        _require(0 <= self.label_smoothing < 1 and 0 <= self.average < 1, "label_smoothing and average are below 1")


# settings that count where the heads alone are fitted; all others of the student are of its training by batches
OF_HEADS = (
    "student.head_l2", "student.alpha", "student.balanced", "student.label_smoothing", "student.enrol",
    "student.corpus_power", "student.l2_factors",
)  # fmt: skip


@dataclass(frozen=True)
class Functionals:
    """The stage that gives the student a second head; it trains on the clips as they were recorded."""

    l2: float = 0.1  # half of it times the squared weights is added to the mean cross-entropy
    told: tuple[int, ...] = (0, 1, 3, 10, 30)  # other clips of the speaker; each clip trains with every one of these
    share: float = Vit.share  # of this head in the answer about a stranger; the less the network knows, the more

    def __post_init__(self) -> None:
        _require(self.l2 > 0, "functionals.l2 must be positive")
        _require(0 <= self.share <= 1, "functionals.share must be between 0 and 1")
        _require(len(self.told) > 0 and min(self.told) >= 0, "functionals.told are numbers of clips, one or more")


@dataclass(frozen=True)
class Recipe:
    """All that makes a training run, but for the corpus, the protocol and the fold."""

    seed: int = 0
    stages: tuple[str, ...] = ("teacher", "matching", "student")  # which to run, in this order
    precision: Precision = "float32"  # of matrix products and convolutions in training
    silent: Literal["drop", "keep", "error"] = "drop"  # clips of digital silence
    contradictory: Literal["drop", "keep", "error"] = "drop"  # same audio, different emotions: drops every copy
    validate: bool = True  # off: the validation side trains too, and nothing chooses an epoch or a temperature
    front_end: FrontEnd = field(default_factory=FrontEnd)
    augment: Augment = field(default_factory=Augment)
    teacher_network: Vit = field(default_factory=lambda: NETWORKS["teacher"])
    student_network: Vit = field(default_factory=lambda: NETWORKS["student"])
    teacher: Stage = field(default_factory=Stage)
    matching: Stage = field(default_factory=lambda: Stage(cross_entropy=False, alpha=1.0))
    student: Stage = field(default_factory=lambda: Stage(alpha=10.0))
    functionals: Functionals = field(default_factory=Functionals)

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "seed must not be negative")
        order = [STAGES.index(stage) for stage in self.stages if stage in STAGES]
        in_order = len(order) == len(self.stages) and order == sorted(set(order)) and len(order) > 0
        _require(in_order, f"stages are some of {', '.join(STAGES)}, in this order, each once")
        ours = self.student_network.functionals or self.teacher_network.functionals
        _require(not ours, "a network gets functionals from the stage of that name")
        shares = {self.student_network.share, self.teacher_network.share}
        _require(shares == {Vit.share}, "the share of the second head is set as functionals.share")
        if "functionals" in self.stages:
            dataclasses.replace(self.student_network, functionals=True)  # raises where they cannot be computed
        for stage in self.stages:
            settings = getattr(self, stage)
            chooses = isinstance(settings, Stage) and settings.keep == "best"
            _require(self.validate or not chooses, f"{stage}.keep is best, but without validate nothing chooses")
        _require(self.teacher.alpha == 0, "teacher.alpha is 0: there is no feature that a teacher could match")
        _require(self.teacher.head_l2 == self.matching.head_l2 == 0, "head_l2 is a setting of the stage student")
        factors = {self.teacher.l2_factors, self.matching.l2_factors}
        _require(factors == {Stage.l2_factors}, "l2_factors are a setting of the stage student")
        late = "shift" in self.augment.versions and self.augment.shift_s >= self.front_end.duration_s
        _require(not late, "augment.shift_s leaves nothing of a clip within front_end.duration_s")
        size = (self.front_end.n_mels, self.front_end.width)
        for name in ("teacher_network", "student_network"):
            image = getattr(self, name).image
            _require(image == size, f"{name}.image is {image}, but the front end makes {size}")
        online = self.augment.online
        masks = online.band_mask < size[0] and online.time_mask < size[1]
        _require(masks, f"online.band_mask and online.time_mask must be less than the image's {size}")
        width = self.teacher_network.embed_dim
        _require(self.student_network.embed_dim == width, "teacher and student need the same embed_dim to be matched")


def check_enrolment(recipe: Recipe) -> None:
    """Refuse a recipe that tells a network of speakers which can make no use of it.

    A recipe alone may not know: a model that training starts from brings its own network.

    Raises
    ------
    ValueError
        Names the setting.
    """
    for stage, network in (("teacher", "teacher"), ("matching", "student"), ("student", "student")):
        told = getattr(recipe, stage).enrol > 0
        normalises = getattr(recipe, f"{network}_network").normalise != "none"
        _require(normalises or not told, f"{stage}.enrol needs {network}_network.normalise")


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file.

    Parameters
    ----------
    path : Path
        YAML; every key is optional, what is not named keeps its default. Or the name of a recipe that comes with
        Vervet, such as `finetune`.
    overrides : sequence of str, optional
        Settings that win over the file's, as `--key=value` or `--part.key=value`, e.g. `--student.lr=3e-4`. Of two with
        the same key the last counts.

    Returns
    -------
    Recipe
        Checked: every key known, every value of its type and in its range.

    Raises
    ------
    ValueError
        Names the file or the override, the key at fault, and the nearest known key.
    """
    data = read_yaml(_found(path)) or {}
    if not isinstance(data, dict):
        raise ValueError(f"{path}: a recipe is a mapping of settings, not a {type(data).__name__}")
    for override in overrides:
        key, equals, value = override.removeprefix("--").partition("=")
        if not override.startswith("--") or not equals:
            raise ValueError(f"{override!r}: settings are given as --key=value")
        _set(data, key.replace("-", "_").split("."), _plain(value, override))
    recipe = merge(Recipe(), data, where=str(path))
    for override in overrides if recipe.student.head_l2 > 0 else ():
        key = override.removeprefix("--").partition("=")[0].replace("-", "_")
        if key.startswith(("student.", "augment.online.", "student_network.dropout")) and key not in OF_HEADS:
            raise ValueError(f"{override}: changes nothing while the heads alone are fitted; add --student.head_l2=0")
    return recipe


def read_yaml(path: Path) -> Any:
    """Read plain data from YAML.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Any
        Its content.

    Raises
    ------
    ValueError
        If it is not UTF-8 or not YAML, or names a key twice, of which YAML would silently take the last.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8 ({error})") from error
    return _plain(text, str(path))


def _plain(text: str, where: str) -> Any:
    """The data that YAML text stands for; `where` opens every error message."""
    import yaml

    class Strict(yaml.SafeLoader):
        # as soon as the mapping is read: later, `<<` has put the keys of other mappings beside its own
        def compose_mapping_node(self, anchor: dict[str, yaml.Node]) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            met = set()
            for key, _ in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise ValueError(f"the key in line {line} is a list or a mapping; give a name")
                if (key.tag, key.value) in met:
                    raise ValueError(f"key {key.value!r} stands twice, also in line {line}")
                met.add((key.tag, key.value))
            return node

    try:
        return yaml.load(text, Strict)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not YAML: {error}") from error
    except ValueError as error:  # also of values that look like a date and are none
        raise ValueError(f"{where}: {error}") from error


def _found(recipe: Path) -> Path:
    """A recipe's file; one that comes with Vervet may go by its name."""
    shipped = Path(__file__).parent / "recipes" / f"{recipe}.yaml"
    return shipped if not recipe.is_file() and recipe.name == str(recipe) and shipped.is_file() else recipe


UNNAMED = ("--seed", "--stages", "--precision")  # how a recipe is run, not what it is


def recipe_name(path: Path, overrides: Sequence[str], matched: bool = False) -> str:
    """Under which name results are filed: the file's stem, and whatever overrides make another recipe of it.

    The seed, the choice of stages and the precision say how a recipe is run and leave it what it is; but a student that
    its recipe would have matched with a teacher, and that was not (`matched`: it was in an earlier run of this folder),
    is another one.
    """
    given = [text.removeprefix("--").partition("=") for text in overrides]
    settings = {f"--{key.replace('-', '_')}": value for key, _, value in given}  # of two with the same key the last
    name = path.stem
    if "--stages" in settings and not matched:
        stages, whole = load_recipe(path, overrides).stages, load_recipe(path).stages
        if "student" in stages and "matching" in set(whole).difference(stages):
            name += " without matching"
    changed = [f"{key}={value}" for key, value in settings.items() if key not in UNNAMED]
    return " ".join([name, *sorted(changed)])


def _set(data: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(inner := data.get(key, {}), dict):
            raise ValueError(f"setting {'.'.join(keys)!r}: {key} has no parts")
        data[key] = dict(inner)  # which YAML shares with every other alias of it
        data = data[key]
    data[keys[-1]] = value


def merge(defaults: T, data: Any, where: str) -> T:
    """Settings with some of them replaced.

    Parameters
    ----------
    defaults : dataclass
        The settings to start from.
    data : dict
        What replaces them, as plain data; nested settings as nested dictionaries.
    where : str
        Opens every error message: the file and the part of it.

    Returns
    -------
    dataclass
        Of the type of `defaults`.

    Raises
    ------
    ValueError
        For an unknown key (names the nearest known one), or a value of the wrong type or out of range.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where}: expected a mapping of settings, not {data!r}")
    hints = get_type_hints(type(defaults))
    values = {}
    for key, value in data.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.0)[0]
            raise ValueError(f"{where}: unknown setting {key!r}; the nearest known is {near!r}")
        current = getattr(defaults, key)
        if dataclasses.is_dataclass(current):
            values[key] = merge(current, value, f"{where}: {key}")
        else:
            values[key] = _typed(hints[key], value, f"{where}: {key}")
    try:
        return dataclasses.replace(defaults, **values)  # pyright: ignore[reportArgumentType, reportCallIssue, reportType]
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _typed(hint: Any, value: Any, where: str) -> Any:
    """`value` if it is of the type `hint`; lists become tuples, whole numbers become floats where one is due."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value in args:
            return value
        raise ValueError(f"{where}: {value!r} is not one of {', '.join(map(str, args))}")
    if origin is tuple:
        if isinstance(value, (list, tuple)):
            kinds = args[:1] * len(value) if args[-1] is Ellipsis else args
            if len(kinds) == len(value):
                return tuple(_typed(kind, item, where) for kind, item in zip(kinds, value, strict=True))
            raise ValueError(f"{where}: expected {len(kinds)} values, not {value!r}")
        if args[-1] is Ellipsis:  # one value stands for a list of it, as in --stages=student
            return (_typed(args[0], value, where),)
    elif hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        # YAML 1.1 reads 1 as an integer and 3e-4, which lacks a point, as text; NaN and infinity are no settings
        with suppress(ValueError, OverflowError):
            if math.isfinite(number := float(value)):
                return number
    elif type(value) is hint:
        return value
    raise ValueError(f"{where}: expected {getattr(hint, '__name__', hint)}, not {value!r}")
