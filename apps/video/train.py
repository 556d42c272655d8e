"""`train`: from videos without labels to a run folder with a model that `discover` and `explain` use."""

from pathlib import Path

import torch

from apps.video.config import VideoConfig
from apps.video.data import DATA, ClipData, Features, encode_videos, fingerprint, read_videos, same_data
from apps.video.encoders import load_encoder
from apps.video.remember import Remembering
from apps.video.task import VideoTask, architecture
from shared.command import is_main_process
from shared.errors import InputError
from shared.io.files import output_folder, write_json
from shared.report.learning_curve import learning_curve
from shared.training.checkpoint import save_model
from shared.training.device import pick_device
from shared.training.run_folder import refuse_to_overwrite, start_run
from shared.training.seeds import seed_everything
from shared.training.trainer import Hardware, fit


def train(
    config: VideoConfig,
    data: Path | None,
    out: Path,
    *,
    weights: Path | None,
    split: str | None,
    names: list[str] | None,
    seed: int,
    resume: bool,
    hardware: Hardware,
) -> dict:
    """Train `config.model.method` on the videos of `data` into the run folder `out`; returns what came of it.

    Features are computed once, by the frozen encoder, and held in half precision: 90 KB a frame at 240 pixels.
    Raises InputError for data or settings that cannot be trained on, and when `out` holds another run.
    """
    if config.train.batch % hardware.processes:
        raise InputError(f"train.batch {config.train.batch}: cannot be shared by {hardware.processes} processes evenly")
    hardware.check()
    if not resume:
        refuse_to_overwrite(out)
    sequences = read_videos(data, split, names)
    assert data is not None
    encoder = Remembering(load_encoder(weights, pick_device(hardware.device)))
    if config.model.method == "attention" and encoder.dim % config.model.heads:
        raise InputError(f"model.heads {config.model.heads}: does not divide the encoder's {encoder.dim} channels")
    about = {"name": data.name, "sha256": fingerprint(sequences), "videos": len(sequences), "encoder": encoder.name}
    about |= {"split": split, "sequences": names}
    if resume:
        same_data(out, about)
    untimed = config.model_copy(update={"train": config.train.model_copy(update={"minutes": None})})
    settings = config.train
    output_folder(out)
    # Before anything is written: a video that cannot be read leaves no folder that looks like a run.
    videos = encode_videos(sequences, encoder, config.features.size, settings.most_frames, config.features.chunk)
    start_run(out, untimed, resume)
    if is_main_process():
        write_json(out / DATA, about)
    clips = ClipData(
        videos,
        frames=settings.frames,
        gap=settings.gap,
        batch=settings.batch,
        steps=settings.steps,
        valid=settings.valid,
        seed=seed,
    )
    seed_everything(seed)
    task = VideoTask(config, encoder.dim)
    task.start_from(sample_tokens(clips.train_videos))
    result = fit(
        task,
        clips,
        out,
        seed=seed,
        max_epochs=settings.epochs,
        monitor="valid/loss",
        patience=settings.patience,
        gradient_clip=settings.gradient_clip,
        hardware=hardware,
        resume=resume,
        max_minutes=settings.minutes,
    )
    metrics = {"valid_loss": result.best, "best_epoch": result.best_epoch, "epochs": result.epochs}
    weights_file = save_model(
        out,
        result.best_state,
        {
            "app": "video",
            "kind": config.model.method,
            "architecture": architecture(config, encoder.dim),
            "encoder": encoder.name,
            "features": config.features.model_dump(),
            "data": about,
            "seed": seed,
            "metrics": metrics,
        },
    )
    curve = learning_curve(out, ("sum of the losses", {"train/loss": "training", "valid/loss": "validation"}))
    return {"model": str(weights_file), "figure": str(curve), "finished": result.finished, **metrics, "data": about}


def sample_tokens(videos: list[Features], most: int = 5000) -> torch.Tensor:
    """Tokens (N, C) of all videos, about `most` of each, evenly spread."""
    flat = [video.keys.flatten(0, 2) for video in videos]
    return torch.cat([tokens[:: max(1, len(tokens) // most)].float() for tokens in flat])
