"""What pretrain, distill and finetune share: data in, training with a checkpoint, model on disk."""

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from damcrack.code import code_name, code_sha256
from damcrack.files import InputError, new_directory, sha256_bytes, write_csv
from damcrack.run import Run
from damcrack.train.batches import DeviceImages
from damcrack.train.checkpoint import Checkpoint
from damcrack.train.config import FinetuneConfig, PretrainConfig, TaughtConfig, TrainingConfig
from damcrack.train.decoded import DecodedSet, decode_set
from damcrack.train.frozen import Frozen, soft_target_table
from damcrack.train.hardware import Plan, best_device, compiled, plan, set_up, uses_bfloat16
from damcrack.train.networks import Forward, check_size, forward_of
from damcrack.train.objectives import Distillation, Objective
from damcrack.train.training import Trained, train
from damcrack.train.weights import ModelInfo, load_model, save_model

HISTORY_COLUMNS = ["epoch", "learning_rate", "train_loss", "train_accuracy", "hard_loss", "soft_loss"]
HISTORY_COLUMNS += ["val_loss", "val_accuracy", "val_pixel_f1", "temperature", "theta", "reversal_weight"]
# Networks with a pixel head see all images alike, so that any of them can teach any other.
PIXEL_STATISTICS = ((127 / 255,) * 3, (128 / 255,) * 3)


def open_images(
    root: Path, image_px: int | None, name: str, run: Run, with_targets: bool = False
) -> DecodedSet:
    """Decode an image set for training and record it with the run; `image_px` None keeps the images' size.

    Raises:
        InputError: the training or validation split is empty.
    """
    images = decode_set(root, image_px, run.scratch / "decoded", with_targets)
    for split, role in (("train", "training"), ("val", "validation")):
        if not len(images.rows_of[split]):
            raise InputError(f"{root}: no {split} images; give more photos, or another val_fraction")
        run.dataset(name, images.digest, root.name, role)
    return images


def load_teacher(folder: Path, images: DecodedSet, config: TrainingConfig) -> tuple[Frozen, ModelInfo]:
    """Load a teacher for the classes of `images` onto the device, in the precision of the training.

    Raises:
        InputError: it was trained on other images or at another size, so its normalisation may differ; networks with a
            pixel head see all images alike, so theirs may be others. Or one of teacher and student has a pixel head
            and the other none: they do not see images alike. Or it tells other classes apart.
    """
    teacher, info = load_model(folder)
    with_pixels = images.targets_NHW is not None
    if (info.pixel_channels is not None) != with_pixels:
        heads = ("no pixel head", "a pixel head")
        raise InputError(
            f"teacher {folder} has {heads[not with_pixels]}, the student has {heads[with_pixels]}, and the two see "
            "images normalised differently; set pixel_channels in both experiments or in neither"
        )
    if info.pixel_channels is None and info.data_digest != images.digest:
        raise InputError(
            f"teacher {folder} was trained on images {info.data_digest[:12]}, the student's are "
            f"{images.digest[:12]}; train the teacher on the same set first"
        )
    if info.pixel_channels is None and info.image_px != images.image_px:
        raise InputError(
            f"teacher {folder} sees images of {info.image_px} px, the student of {images.image_px} px; "
            "give both the same image_px"
        )
    check_classes(folder, info, images)
    return Frozen(teacher.to(best_device()), uses_bfloat16(config.precision, teacher)), info


def check_classes(folder: Path, info: ModelInfo, images: DecodedSet) -> None:
    """Refuse a model whose answers mean something else than the labels of `images`.

    Raises:
        InputError: its classes are others, or in another order.
    """
    if info.classes != images.classes:
        raise InputError(
            f"{folder} tells apart {', '.join(info.classes)}; the images' classes are {', '.join(images.classes)}; "
            "give a model of the same classes"
        )


def describe(
    name: str,
    images: DecodedSet,
    config: PretrainConfig | TaughtConfig,
    init_sha256: str | None = None,
    teacher_sha256: str | None = None,
) -> ModelInfo:
    """Say what is about to be trained on which data and from which weights; best epoch and hash are still open.

    Raises:
        InputError: the images are too small for the network.
    """
    check_size(config.network, images.image_px)
    with_pixels = images.targets_NHW is not None
    mean, std = PIXEL_STATISTICS if with_pixels else images.channel_statistics("train")
    return ModelInfo(
        name=name,
        network=config.network,
        classes=images.classes,
        image_px=images.image_px,
        mean=mean,
        std=std,
        data_digest=images.digest,
        init_sha256=init_sha256,
        teacher_sha256=teacher_sha256,
        best_epoch=0,
        config=asdict(config),
        pixel_channels=config.pixel_channels if isinstance(config, FinetuneConfig) else None,
    )


@dataclass(frozen=True)
class Task:
    """A network, what it is trained towards, its description, and how many unlabelled images join each batch."""

    network: nn.Module
    objective: Objective
    info: ModelInfo
    num_unlabelled: int = 0


def fit(task: Task, images: DecodedSet, config: TrainingConfig, out: Path, run: Run) -> dict[str, object]:
    """Train, write the model folder, and return the summary.

    A checkpoint keyed by all inputs is left when training is interrupted, taken up by the next call, and
    removed once the model is in its place.
    """
    info = task.info
    num_steps = config.epochs * -(-len(images.rows_of["train"]) // config.batch_size)
    here = plan(config.precision, config.compile, images.images_NHWC.nbytes, num_steps, task.network)
    config = replace(config, precision="bfloat16" if here.bfloat16 else "float32")
    run.say(here.words)
    set_up(here)
    task.network.to(here.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    task.objective.to(here.device)
    data, forward = _prepare(task, images, config, here, run)
    checkpoint = Checkpoint(run.scratch / "checkpoints" / code_name() / f"{_key(info)}.safetensors")
    log = partial(_log, run, config.epochs)
    trained = train(task.network, task.objective, data, config, checkpoint, log, forward)
    with new_directory(out, "model") as folder:
        save_model(folder, replace(info, best_epoch=trained.best_epoch), trained.best, trained.last)
        write_csv(folder / "history.csv", HISTORY_COLUMNS, trained.history)
    checkpoint.remove()
    return _summary(info, trained, here.words, out)


def _prepare(
    task: Task, images: DecodedSet, config: TrainingConfig, here: Plan, run: Run
) -> tuple[DeviceImages, Forward]:
    """What the loop reads and what a batch goes through; with fixed views, a teacher answers here, once."""
    info, network = task.info, task.network
    data = DeviceImages(
        images,
        (info.mean, info.std),
        config.augmentation,
        here.device,
        config.views,
        here.resident,
        here.compiled,
        task.num_unlabelled,
    )
    forward = compiled(forward_of(network), here.device) if here.compiled else forward_of(network)
    if isinstance(task.objective, Distillation):
        teacher = task.objective.teacher
        if config.views is not None:
            inputs = _soft_target_inputs(info, images, config, here)
            cache = run.scratch / "soft-targets" / code_name()
            data.teacher_logits_VNC = soft_target_table(teacher, data, inputs, cache)
        elif here.compiled:
            teacher.compile(here.device)
    return data, forward


def _soft_target_inputs(
    info: ModelInfo, images: DecodedSet, config: TrainingConfig, here: Plan
) -> dict[str, object]:
    """All that a teacher's logits for the fixed views are a function of."""
    return {
        "teacher": info.teacher_sha256,
        "data": (info.data_digest, info.image_px, info.mean, info.std),
        "images": sha256_bytes(images.rows_of["train"].tobytes()),
        "views": (config.views, asdict(config.augmentation)),
        "computed": (here.device.type, here.bfloat16, torch.__version__, code_sha256()),
    }


def _key(info: ModelInfo) -> str:
    content = {"info": asdict(info), "code": code_sha256(), "torch": torch.__version__}
    return sha256_bytes(json.dumps(content, sort_keys=True).encode())[:32]


def _log(run: Run, epochs: int, row: dict[str, float]) -> None:
    epoch = int(row["epoch"])
    run.metrics({name: value for name, value in row.items() if name != "epoch"}, step=epoch)
    loss, accuracy = row["train_loss"], row["val_accuracy"]
    pixels = f", pixel F1 {row['val_pixel_f1']:.3f}" if "val_pixel_f1" in row else ""
    run.say(f"epoch {epoch}/{epochs}: loss {loss:.4f}, validation accuracy {accuracy:.2%}{pixels}")


def _summary(info: ModelInfo, trained: Trained, where: str, out: Path) -> dict[str, object]:
    best = trained.history[trained.best_epoch - 1]
    summary: dict[str, object] = {
        "model": f"{info.name}: {info.network}, {len(info.classes)} classes, {info.image_px} px ({where})",
        "best epoch": f"{trained.best_epoch} of {len(trained.history)}",
        "validation accuracy": f"{best['val_accuracy']:.2%} (training {best['train_accuracy']:.2%})",
    }
    if "val_pixel_f1" in best:
        summary["validation pixel F1"] = f"{best['val_pixel_f1']:.3f}"
    if "temperature" in best:
        summary["temperature"] = f"{trained.history[-1]['temperature']:.4f} in the last epoch"
    return summary | {"weights": out / "weights.safetensors", "history": out / "history.csv"}
