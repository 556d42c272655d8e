"""`discover`: the objects of a video without being told any, in two passes of bounded memory.

The first pass looks at a few frames spread over the video and learns what is in it; the second labels every frame.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from apps.video.clustering import assign_rows, cluster
from apps.video.config import VideoConfig
from apps.video.encoders import Encoder, load_encoder
from apps.video.foreground import cut, fit_palette, fit_rule, salient
from apps.video.masks import MOST, resize_labels
from apps.video.measures import contour
from apps.video.model import SlotModel, TemporalModel, build
from apps.video.outputs import MaskFolder, mask_folder, present, video_name
from apps.video.refine import confidence_of, decide, sharpen
from shared.command import progress
from shared.errors import InputError
from shared.io.files import write_json
from shared.io.video import Video
from shared.training.checkpoint import load_model, load_weights
from shared.training.device import pick_device

# Of a frame (H, W, 3) uint8, its keys (h, w, C) and those of the frame before: soft labels, the background first.
Labeller = Callable[[np.ndarray, Tensor, Tensor], Tensor]
UNTRAINED = ("salient", "tokencut")  # methods that need no model of train


def discover(
    config: VideoConfig,
    source: Path,
    out: Path,
    *,
    method: str | None = None,
    checkpoint: Path | None = None,
    weights: Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> dict:
    """Find the objects of `source`; method None: that of the checkpoint, else salient.

    Writes what `apps.video.outputs` lists, and NAME.discovery.json, which is returned too.
    Raises InputError for a video that cannot be read and for a checkpoint of another method or encoder.
    """
    where = pick_device(device)
    discoverer = Discoverer(config, method, checkpoint, load_encoder(weights, where), seed=seed, device=where)
    with Video(source, config.features.size) as video:
        with mask_folder(out, source, video.info.frames) as folder:
            found = discoverer.find(video, folder)
        note = video.note
    confidence = [folder.confidence[index] for index in sorted(folder.confidence)]
    result = {
        "video": str(source),
        "method": discoverer.method,
        "encoder": discoverer.encoder.name,
        "frames": len(confidence),
        **found,
        **present(out, source, folder),
        "mean_confidence": float(np.mean(confidence)),
    }
    if note:
        result["note"] = note
    path = out / f"{video_name(source)}.discovery.json"
    write_json(path, {**result, "confidence": confidence, "settings": config.model_dump(mode="json")})
    return {**result, "written": str(path)}


class Discoverer:
    """A method with its encoder and its model, ready for any number of videos."""

    def __init__(
        self,
        config: VideoConfig,
        method: str | None,
        checkpoint: Path | None,
        encoder: Encoder,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self.config, self.encoder, self.seed, self.device = config, encoder, seed, device
        self.model: TemporalModel | SlotModel | None = None
        if checkpoint is not None:
            self.model, kind = load_trained(checkpoint, encoder, device)
            if method not in (None, kind):
                raise InputError(f"{checkpoint}: is a model of the method {kind}, not {method}; leave --method out")
            method = kind
        self.method = method or "salient"
        if self.method not in UNTRAINED and self.model is None:
            raise InputError(f"--method {self.method}: needs a model that train made; give it as --checkpoint")

    @torch.inference_mode()
    def find(self, video: Video, folder: MaskFolder) -> dict:
        """Add the masks of every frame of the video to `folder`; returns the objects and `object_score`.

        The score is the product of three shares: how distinct the parts' features are, how much of the objects stays
        where it is from frame to frame, and how much of their outline lies on edges of the image.
        """
        labeller, facts = self.learn(self.look(video))
        height, width = video.info.source_size
        stable, edges, before, objects = [], [], None, set()
        with progress() as bar:
            task = bar.add_task("frames", total=video.info.frames)
            for index, frame, keys, previous in self.encoded(video):
                soft = labeller(frame, keys, previous)
                labels = decide(sharpen(soft.cpu(), frame, self.config.features.refine), height, width)
                folder.add(index, labels, confidence_of(soft))
                objects |= set(np.unique(labels[labels > 0]).tolist())
                edges.append(edge_support(frame, resize_labels(labels, *frame.shape[:2])))
                if before is not None:
                    stable.append(agreement(before, labels))
                before = labels
                bar.advance(task)
        steady = float(np.mean(stable)) if stable else 1.0
        score = facts.pop("contrast") * steady * float(np.mean(edges)) if objects else 0.0
        return {"objects": sorted(objects), "object_score": score, **facts}

    def look(self, video: Video) -> list[np.ndarray]:
        """The first pass: frames spread over the video, each with the one before it: (2, H, W, 3); once for frame 0."""
        cluster = self.config.cluster
        count = video.info.frames
        wanted = min(cluster.keys, max(min(3, count), -(-count // cluster.every)))
        found: list[np.ndarray] = []
        for index in np.unique(np.linspace(0, count - 1, wanted).round().astype(int)).tolist():
            try:
                parts = list(video.chunks(2, start=max(0, index - 1), stop=index + 1))
            except InputError:
                continue  # beyond the place where the file breaks off
            found.append(parts[0].frames)
        if not found:
            raise InputError(f"{video.path}: none of its frames can be read; {video.note or 'copy it again'}")
        return found

    def learn(self, seen: list[np.ndarray]) -> tuple[Labeller, dict]:
        """From the sampled frames, how to label any frame; and what was found out on the way."""
        pairs = [self.encode(frames) for frames in seen]
        sampled = [(pair[-1], pair[0]) for pair in pairs]
        if self.method in UNTRAINED:
            return self.by_rule(torch.from_numpy(np.stack([pair[-1] for pair in seen])).to(self.device), sampled)
        if isinstance(self.model, TemporalModel):
            return self.by_attention(self.model, sampled)
        assert isinstance(self.model, SlotModel)
        return self.by_slots(self.model, sampled)

    def by_rule(self, frames: Tensor, sampled: list[tuple[Tensor, Tensor]]) -> tuple[Labeller, dict]:
        now, before = (torch.stack(part) for part in zip(*sampled, strict=True))
        salience = self.encoder.salience(frames)
        if self.method == "salient":
            mask = salient(salience, self.config.salient.above)
        else:
            mask = cut(now, before, salience, self.config.tokencut)
        rule = fit_rule(now, mask)
        objects, palette = self.config.salient.objects, None
        if objects > 1:
            palette = fit_palette(frames, [rule.label(keys) for keys in now], objects, self.seed)

        def soft(frame: np.ndarray, keys: Tensor, _: Tensor) -> Tensor:
            labels = rule.label(keys)
            return labels if palette is None else palette.label(torch.from_numpy(frame).to(keys.device), labels)

        return soft, {"contrast": rule.contrast}

    def by_attention(self, model: TemporalModel, sampled: list[tuple[Tensor, Tensor]]) -> tuple[Labeller, dict]:
        settings = self.config.cluster
        context = torch.stack([keys for keys, _ in sampled])
        flat = context.flatten(0, 2)
        grid = context.shape[1] * context.shape[2]
        frames = torch.arange(len(context)).repeat_interleave(grid)
        every = max(1, -(-len(flat) // settings.rows))
        rows = model.signatures(flat[::every], flat)
        centres, tau = cluster(rows, frames[::every], settings.tau, settings.window, settings.most, settings.least)

        def soft(keys: Tensor) -> Tensor:
            h, w = keys.shape[:2]
            return assign_rows(model.signatures(keys.flatten(0, 1), flat), centres).T.unflatten(1, (h, w))

        order, contrast = background_first([soft(keys) for keys, _ in sampled])
        centres = centres[order]
        return lambda frame, keys, _: soft(keys), {"contrast": contrast, "clusters": len(centres), "tau": tau}

    def by_slots(self, model: SlotModel, sampled: list[tuple[Tensor, Tensor]]) -> tuple[Labeller, dict]:
        shape = (1, model.slots.instances, *model.slots.gaussians.mean.shape)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(self.seed)).to(self.device)

        def masks(keys: Tensor, before: Tensor) -> Tensor:
            _, stages = model(keys[None], before[None], noise)
            return stages.instance_masks[0].flatten(0, 1).unflatten(1, keys.shape[:2])  # (K M, h, w)

        seen = [masks(keys, before) for keys, before in sampled]
        used = torch.bincount(torch.cat([one.argmax(0).flatten() for one in seen]), minlength=len(seen[0]))
        kept = used.argsort(descending=True, stable=True)[: self.config.cluster.most]
        kept = kept[used[kept] > 0]
        order, contrast = background_first([one[kept] for one in seen])
        kept = kept[order]

        def soft(frame: np.ndarray, keys: Tensor, before: Tensor) -> Tensor:
            shares = masks(keys, before)[kept]
            return shares / shares.sum(0).clamp_min(1e-8)  # what the other slots hold is not the background's

        return soft, {"contrast": contrast, "clusters": len(kept)}

    def encode(self, frames: np.ndarray) -> Tensor:
        return self.encoder.keys(torch.from_numpy(frames).to(self.device))[0]

    def encoded(self, video: Video) -> Iterator[tuple[int, np.ndarray, Tensor, Tensor]]:
        """The second pass: (index, frame, its keys, those of the frame before)."""
        previous = None
        for chunk in video.chunks(self.config.features.chunk):
            for index, frame, keys in zip(chunk.indices.tolist(), chunk.frames, self.encode(chunk.frames), strict=True):
                yield index, frame, keys, keys if previous is None else previous
                previous = keys


def load_trained(checkpoint: Path, encoder: Encoder, device: torch.device) -> tuple[TemporalModel | SlotModel, str]:
    """A model of `train` and its method. Raises InputError for another, or for one of another encoder."""
    state, card = load_model(checkpoint, "video")
    if card.get("kind") not in ("attention", "slots"):
        raise InputError(f"{checkpoint}: is an encoder of pretrain; give it as --weights, and a model of train here")
    if card.get("encoder") != encoder.name:
        raise InputError(
            f"{checkpoint}: was trained on features of {card.get('encoder')}, not {encoder.name}; give its --weights"
        )
    model = build(card["kind"], card["architecture"])
    load_weights(model, state, checkpoint)
    return model.to(device).eval(), card["kind"]


def background_first(labels: list[Tensor]) -> tuple[Tensor, float]:
    """An order of K labels: first the one that holds most of the frame's border, then by how little border they hold.

    Shape: soft labels (K, h, w) of some frames -> (K,), and the contrast: how much surer the winners are than chance.
    """
    hard = torch.stack([one.argmax(0) for one in labels])
    count = len(labels[0])
    inner = torch.zeros_like(hard[0], dtype=torch.bool)
    inner[1:-1, 1:-1] = True
    edge = torch.bincount(hard[:, ~inner].flatten(), minlength=count).float()
    area = torch.bincount(hard.flatten(), minlength=count).float()
    first = int(edge.argmax())
    share = edge / area.clamp_min(1)
    share[first] = -1
    sure = torch.stack([one.max(0).values.mean() for one in labels]).mean()
    contrast = float((sure - 1 / count) / (1 - 1 / count)) if count > 1 else 0.0
    return share.argsort(stable=True)[: MOST + 1], contrast


def edge_support(frame: np.ndarray, labels: np.ndarray, threshold: float = 6.0) -> float:
    """The share of the objects' outline that lies within two pixels of an edge of the image; 0 without an outline."""
    from scipy.ndimage import maximum_filter

    outline = contour(labels > 0)
    if not outline.any():
        return 0.0
    grey = frame.astype(np.float32).mean(-1)
    steps = np.maximum(
        np.abs(np.diff(grey, axis=0, append=grey[-1:])), np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    )
    return float((maximum_filter(steps, 5)[outline] > threshold).mean())


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """The J of what is any object in two frames in a row: near 1 for what is really there, low for flicker."""
    union = np.count_nonzero((a > 0) | (b > 0))
    return np.count_nonzero((a > 0) & (a == b)) / union if union else 1.0
