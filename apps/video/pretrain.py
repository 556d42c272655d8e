"""`pretrain`: a small ViT on the user's own frames by self-distillation, in the manner of DINO.

House notation: B images, P prototypes, C channels.
"""

import copy
import math
from pathlib import Path

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from apps.video.config import PretrainConfig, VideoConfig
from apps.video.data import DATA, fingerprint, read_videos, same_data
from shared.command import is_main_process, progress
from shared.encoders.vit import MEAN, STD, VisionTransformer
from shared.io.files import write_json
from shared.io.video import Video
from shared.report.learning_curve import learning_curve
from shared.training.checkpoint import save_model
from shared.training.run_folder import refuse_to_overwrite, start_run
from shared.training.seeds import seed_everything
from shared.training.trainer import Hardware, fit


def pretrain(
    config: VideoConfig,
    data: Path | None,
    out: Path,
    *,
    split: str | None,
    names: list[str] | None,
    seed: int,
    resume: bool,
    hardware: Hardware,
) -> dict:
    """Train the ViT of `config.pretrain` on the frames of `data` into the run folder `out`: give it as --weights.

    Watched is the share of held-out frames whose nearest neighbour by class token is of the same video (frames next to
    it in time do not count). Raises InputError for data that cannot be trained on, and when `out` holds another run.
    """
    hardware.check()
    if not resume:
        refuse_to_overwrite(out)
    sequences = read_videos(data, split, names)
    assert data is not None
    settings = config.pretrain
    about = {"name": data.name, "sha256": fingerprint(sequences), "videos": len(sequences)}
    if resume:
        same_data(out, about)
    # Before anything is written: a video that cannot be read leaves no folder that looks like a run.
    frames, video = read_frames(sequences, round(1.5 * settings.crop), config.train.most_frames)
    start_run(out, config, resume)
    if is_main_process():
        write_json(out / DATA, about)
    seed_everything(seed)
    task = DistillTask(settings)
    images = FrameData(frames, video, settings, seed=seed)
    result = fit(
        task,
        images,
        out,
        seed=seed,
        max_epochs=settings.epochs,
        monitor="valid/retrieval",
        mode="max",
        gradient_clip=3.0,
        hardware=hardware,
        resume=resume,
    )
    metrics = {"valid_retrieval": result.best, "chance": images.chance, "best_epoch": result.best_epoch}
    card = {
        "app": "video",
        "kind": "encoder",
        "architecture": architecture(settings),
        "data": about,
        "seed": seed,
        "metrics": metrics,
    }
    weights = save_model(out, result.best_state, card)
    curve = learning_curve(out, ("nearest frame is of the same video", {"valid/retrieval": "validation"}))
    return {"model": str(weights), "figure": str(curve), **metrics, "data": about, "frames": len(frames)}


def architecture(config: PretrainConfig) -> dict:
    return {
        "patch": config.patch,
        "dim": config.dim,
        "depth": config.depth,
        "heads": config.heads,
        "grid": config.crop // config.patch,
    }


def read_frames(sequences: list, short: int, most: int) -> tuple[list[Tensor], np.ndarray]:
    """Frames (3, H, W) uint8, at most `most` of a video, and the video of each."""
    frames, video = [], []
    with progress() as bar:
        for number, sequence in enumerate(bar.track(sequences, description="videos")):
            with Video(sequence.frames, short) as source:
                for chunk in source.chunks(16, stride=max(1, -(-source.info.frames // most))):
                    frames += [torch.from_numpy(frame).permute(2, 0, 1).contiguous() for frame in chunk.frames]
                    video += [number] * len(chunk.frames)
    return frames, np.array(video)


class Crops(Dataset):
    """Two global crops and some local ones of a frame; draws come from (seed, epoch, place)."""

    def __init__(self, frames: list[Tensor], places: np.ndarray, config: PretrainConfig, seed: tuple[int, int]) -> None:
        self.frames, self.places, self.config, self.seed = frames, places, config, seed

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((*self.seed, number))
        frame = self.frames[self.places[number]]
        config = self.config
        whole = [augment(frame, config.crop, (0.4, 1.0), rng) for _ in range(2)]
        parts = [augment(frame, config.local, (0.1, 0.4), rng) for _ in range(config.locals)]
        return {"whole": torch.stack(whole), **({"parts": torch.stack(parts)} if parts else {})}


def augment(frame: Tensor, size: int, area: tuple[float, float], rng: np.random.Generator) -> Tensor:
    """A random crop of this share of the frame's area, perhaps mirrored, in other colours: (3, size, size)."""
    height, width = frame.shape[1:]
    share, ratio = rng.uniform(*area), math.exp(rng.uniform(-0.29, 0.29))
    h = min(height, max(2, round(math.sqrt(height * width * share / ratio))))
    w = min(width, max(2, round(math.sqrt(height * width * share * ratio))))
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    x = frame[None, :, top : top + h, left : left + w].float() / 255
    x = F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=True)[0]
    if rng.random() < 0.5:
        x = x.flip(-1)
    if rng.random() < 0.8:  # brightness, contrast, saturation
        x = x * rng.uniform(0.6, 1.4)
        x = (x - x.mean()) * rng.uniform(0.6, 1.4) + x.mean()
        grey = x.mean(0, keepdim=True)
        x = grey + (x - grey) * rng.uniform(0.8, 1.2)
    if rng.random() < 0.2:
        x = x.mean(0, keepdim=True).expand_as(x)
    return normalised(x.clamp(0, 1))


def normalised(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (x - mean) / std


class FrameData(lightning.LightningDataModule):
    """Every fifth frame is held out; its nearest neighbour is looked for among all, or as many as are quick to compare.

    `gallery` are the places (G,) that are compared, `asked` which of them (G,) are held out, and `chance` the share of
    these whose neighbour would be of their video if it were drawn.
    """

    def __init__(self, frames: list[Tensor], video: np.ndarray, config: PretrainConfig, *, seed: int) -> None:
        super().__init__()
        self.frames, self.config, self.seed, self.video = frames, config, seed, video
        held = np.arange(len(frames)) % 5 == min(4, len(frames) - 1)
        self.train_places = np.flatnonzero(~held)
        self.gallery = np.sort(np.concatenate([spread(self.train_places, 320), spread(np.flatnonzero(held), 80)]))
        self.asked = held[self.gallery]
        shares = np.bincount(video[self.gallery]) / len(self.gallery)
        self.chance = float(shares[video[self.gallery[self.asked]]].mean())

    def train_dataloader(self) -> DataLoader:
        epoch = self.trainer.current_epoch if self.trainer else 0
        rng = np.random.default_rng((self.seed, epoch))
        places = rng.choice(self.train_places, self.config.steps * self.config.batch)
        return DataLoader(Crops(self.frames, places, self.config, (self.seed, epoch)), batch_size=self.config.batch)

    def val_dataloader(self) -> DataLoader:
        size = self.config.crop
        items = []
        for place, asked in zip(self.gallery, self.asked, strict=True):
            frame = self.frames[place][None].float() / 255
            image = F.interpolate(frame, (size, size), mode="bilinear", align_corners=False, antialias=True)[0]
            items.append({"image": normalised(image), "video": int(self.video[place]), "asked": bool(asked)})
        return DataLoader(items, batch_size=64)  # pyright: ignore[reportArgumentType]


def spread(places: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the places (N,), evenly spread."""
    return places[np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int)]


class Head(nn.Module):
    """To prototypes: an MLP, a normalised bottleneck, and cosines with normalised prototypes."""

    def __init__(self, dim: int, prototypes: int, hidden: int = 256, bottleneck: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.mlp(x), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


class DistillTask(lightning.LightningModule):
    """The student's view of a crop should name the prototypes that the teacher names for another crop.

    loss = - sum_p softmax((t - centre) / 0.04)_p log softmax(s / 0.1)_p over pairs of a global crop (teacher) and any
    other crop (student); the teacher is the student's moving average, the centre the moving mean of its outputs.

    Reference: Caron et al. 2021, Emerging Properties in Self-Supervised Vision Transformers, arXiv 2104.14294,
        section 3. Deviations: no schedules but the learning rate's; no Gaussian blur and no solarisation.
    """

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        student = VisionTransformer(**architecture(config))
        self.student = nn.ModuleDict({"vit": student, "head": Head(config.dim, config.prototypes)})
        self.model = copy.deepcopy(student).requires_grad_(False)  # the teacher: what is kept
        self.teacher_head = copy.deepcopy(self.student["head"]).requires_grad_(False)
        self.register_buffer("centre", torch.zeros(config.prototypes))
        self.seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        whole = batch["whole"]
        with torch.no_grad():
            taught = self.teacher_head(self.model(whole.flatten(0, 1))).unflatten(0, whole.shape[:2])
            targets = ((taught - self.centre) / 0.04).softmax(-1)
        views = [self.student["head"](self.student["vit"](whole.flatten(0, 1))).unflatten(0, whole.shape[:2])]
        if "parts" in batch:
            parts = batch["parts"]
            views.append(self.student["head"](self.student["vit"](parts.flatten(0, 1))).unflatten(0, parts.shape[:2]))
        guesses = (torch.cat(views, 1) / 0.1).log_softmax(-1)
        losses = [
            -(targets[:, a] * guesses[:, b]).sum(-1).mean() for a in range(2) for b in range(guesses.shape[1]) if a != b
        ]
        loss = torch.stack(losses).mean()
        self.centre.lerp_(taught.flatten(0, 1).mean(0), 0.1)
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(whole), sync_dist=True)
        return loss

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        pairs = ((self.model, self.student["vit"]), (self.teacher_head, self.student["head"]))
        with torch.no_grad():
            for teacher, student in pairs:
                for mean, value in zip(teacher.parameters(), student.parameters(), strict=True):
                    mean.lerp_(value, 1 - self.config.teacher)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self.seen.append((F.normalize(self.model(batch["image"]), dim=-1), batch["video"], batch["asked"]))

    def on_validation_epoch_end(self) -> None:
        features, video, asked = (torch.cat(part) for part in zip(*self.seen, strict=True))
        self.seen = []
        alike = features @ features.T
        places = torch.arange(len(features), device=features.device)
        alike.masked_fill_((places[:, None] - places).abs() <= 1, -torch.inf)  # itself and its neighbours in time
        self.log("valid/retrieval", (video[alike.argmax(1)] == video)[asked].float().mean(), sync_dist=True)

    def configure_optimizers(self) -> dict:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        total = config.steps * config.epochs

        def factor(step: int) -> float:
            rise = min(1.0, (step + 1) / max(1, total // 10))
            return rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
