"""What can be set of a training, each value with its type, range and default; no torch.

Sections `pretrain`, `distill` and `finetune` of params.yaml: what all experiments of a section have in common, and for
each experiment by name what differs. A value that is in neither has its default.
"""

from dataclasses import fields
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

Flips = Literal["none", "horizontal", "dihedral"]
Precision = Literal["auto", "float32", "bfloat16"]
Compile = Literal["auto", "on", "off"]
Trainable = Literal["all", "head"]
Ramp = Literal["cosine", "linear", "constant"]
SoftLoss = Literal["kl", "cross-entropy"]
TemperatureScale = Literal["inside", "detached"]

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def _smaller_first(scales: tuple[float, float]) -> tuple[float, float]:
    if scales[0] > scales[1]:
        raise ValueError(f"scales: {list(scales)}; expected the smaller first")
    return scales


Scales = Annotated[tuple[Positive, Positive], AfterValidator(_smaller_first)]


@dataclass(frozen=True, config=STRICT)
class Appearance:
    """How differently cameras and light may show the same wall.

    `jitter`: brightness, contrast and saturation are each multiplied by 1 - jitter to 1 + jitter. `grey` and `blur`
    are chances: of losing all colour, and of being softened by up to about one pixel. `noise`: the largest standard
    deviation of added grain, in grey values of 255.
    """

    jitter: Share
    grey: Share
    blur: Share
    noise: Annotated[float, Field(ge=0, le=255)]


@dataclass(frozen=True, config=STRICT)
class Augmentation:
    """`flips`: none, left-right, or all eight symmetries of the square; then geometry, then appearance.

    `rotate_deg` and `shift_px` are the ends of symmetric uniform ranges. `scales` are the least and the largest side
    of what a view shows, as a share of the image's side (log-uniform): below 1 is a crop, above 1 a look from further
    away, mirrored at the borders. 0, 0 and (1, 1) skip the resampling; `appearance` None leaves the colours.

    `view_px` is the side of what comes out, None: the image's. `focus` is the chance that a view of a tile with known
    crack pixels is centred on one of them.
    """

    flips: Flips = "none"
    rotate_deg: NotNegative = 0.0
    shift_px: NotNegative = 0.0
    scales: Scales = (1.0, 1.0)
    appearance: Appearance | None = None
    view_px: Annotated[int, Field(ge=32, multiple_of=32)] | None = None
    focus: Share = 0.0

    @property
    def resamples(self) -> bool:
        """Whether pixels are interpolated."""
        moves = self.rotate_deg or self.shift_px or self.focus
        return bool(moves or self.scales != (1.0, 1.0) or self.view_px)


@dataclass(frozen=True, config=STRICT)
class TemperatureConfig:
    """How the temperature behaves: kind `fixed` uses `value`; `dynamic` uses the fields from t_min to ramp.

    In the `epochs_at_one` last epochs either is 1 (paper, section 2.1: the student's last phase).
    """

    kind: Literal["fixed", "dynamic"]
    value: Positive = 4.0
    t_min: Positive = 3.0
    t_max: Positive = 5.0
    theta_start: float = 0.0
    ramp_epochs: Count = 10
    ramp: Ramp = "cosine"
    epochs_at_one: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        if not self.t_min < self.t_max:
            raise ValueError(f"t_min, t_max: {self.t_min}, {self.t_max}; expected t_min < t_max")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingConfig:
    """What every training has.

    `views` null draws augmentations again in every epoch. A number fixes that many draws per image, used in turn:
    what a teacher says of them is then computed once and stored. `precision` auto is bfloat16 where the hardware is
    faster with it. `compile` auto compiles on a GPU where it pays. `momentum` is SGD's alone. `clip_norm` bounds the
    norm of a step's gradient.
    """

    epochs: Count
    learning_rate: Positive
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimiser: Literal["sgd", "adamw"] = "sgd"
    momentum: Share = 0.9
    weight_decay: NotNegative = 0.0005
    clip_norm: Positive | None = None
    flips: Flips = "horizontal"
    rotate_deg: NotNegative = 0.0
    shift_px: NotNegative = 0.0
    scales: Scales = (1.0, 1.0)
    appearance: Appearance | None = None
    views: Count | None = None
    precision: Precision = "auto"
    compile: Compile = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def __post_init__(self) -> None:
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs: {self.warmup_epochs}; expected at most epochs ({self.epochs})")

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation fields as one."""
        own = {field.name for field in fields(Augmentation)} & {field.name for field in fields(self)}
        return Augmentation(**{name: getattr(self, name) for name in own})


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainConfig(TrainingConfig):
    """Section `pretrain`; a `temperature` above 1 trains a teacher on the soft outputs that it will teach with."""

    network: str
    temperature: Positive = 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TaughtConfig(TrainingConfig):
    """Fields of the stages in which a teacher may teach: weight and kind of the soft loss, and the temperature.

    `temperature_scale`: T^2 moves a learned temperature too (inside), or does not (detached).
    """

    network: str = "resnet18"
    alpha: Share = 0.6
    soft_loss: SoftLoss = "kl"
    temperature_scale: TemperatureScale = "inside"
    temperature: TemperatureConfig = Field(default_factory=lambda: TemperatureConfig("dynamic"))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DistillConfig(TaughtConfig):
    """Section `distill`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FinetuneConfig(TaughtConfig):
    """Section `finetune`.

    `init` names the weights to start from and `teacher` the fine-tuned teacher of a crack-stage distillation;
    null is none. Tiles are averaged down to `image_px`; with a pixel head, which inspects photos as they are, it is
    the tiles' side. `trainable` head freezes the body. `labelled_tiles` takes so many tiles only, half of them cracks,
    a fifth for validation: how much is learned from few labels; epochs are then added until there are `min_steps`. The
    fields of the distillation loss act only with a teacher.

    `pixel_channels` gives the network a pixel head of that width, which learns from the tiles' masks; null is the
    paper's tile head alone. `encoder_weights` starts its body from ImageNet weights: `imagenet`, or a local file.
    `view_px` and `focus`: see Augmentation. `unlabelled_share` of each batch are tiles without a label, for a teacher.
    """

    image_px: Annotated[int, Field(ge=8)]
    flips: Flips = "dihedral"
    init: str | None = None
    teacher: str | None = None
    trainable: Trainable = "all"
    labelled_tiles: Annotated[int, Field(ge=10)] | None = None
    min_steps: Annotated[int, Field(ge=0)] = 0
    pixel_channels: Annotated[int, Field(ge=8)] | None = None
    encoder_weights: str | None = None
    view_px: Annotated[int, Field(ge=32, multiple_of=32)] | None = None
    focus: Share = 0.0
    unlabelled_share: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder_weights is not None and self.init is not None:
            raise ValueError(
                f"encoder_weights: {self.encoder_weights!r} and init: {self.init!r}; give one of them"
            )
        if self.pixel_channels is None and (self.view_px is not None or self.focus):
            raise ValueError("view_px, focus: need pixel_channels")
        if self.pixel_channels is not None and (self.views is not None or self.trainable != "all"):
            raise ValueError("pixel_channels: a pixel head needs views: null and trainable: all")
        if self.unlabelled_share:
            self._check_unlabelled()

    def _check_unlabelled(self) -> None:
        if not 1 <= self.num_unlabelled <= self.batch_size - 2:
            raise ValueError(
                f"unlabelled_share: {self.unlabelled_share} of batch_size {self.batch_size} are {self.num_unlabelled} "
                f"tiles; expected 1 to {self.batch_size - 2}: two with a label must remain"
            )
        if self.teacher is None or self.pixel_channels is None:
            raise ValueError("unlabelled_share: tiles without a label need a teacher and pixel_channels")

    @property
    def num_unlabelled(self) -> int:
        """How many images of a batch of `batch_size` carry no label."""
        return round(self.unlabelled_share * self.batch_size)
