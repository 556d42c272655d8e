"""Keys that are kept on disk by what their frame shows, so that a data set is encoded once for all that uses it."""

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from apps.video.encoders import Encoder
from shared.io.cache import cache_folder
from shared.io.files import replacing


class Remembering:
    """An `Encoder` whose keys and class tokens are kept, in half precision: 90 KB a frame at 240 pixels.

    A frame is known by its pixels and by the name of the encoder. The folder may be deleted at any time.
    """

    def __init__(self, encoder: Encoder, folder: Path | None = None) -> None:
        self.encoder = encoder
        self.name, self.stride, self.dim = encoder.name, encoder.stride, encoder.dim
        self.folder = (folder or cache_folder()) / "video"
        self.parameters, self.fine, self.salience = encoder.parameters, encoder.fine, encoder.salience

    def keys(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        files = [self.place(frame) for frame in frames]
        missing = [i for i, file in enumerate(files) if not file.exists()]
        if missing:
            keys, cls = self.encoder.keys(frames[missing])
            for i, one, token in zip(missing, keys, cls, strict=True):
                with replacing(files[i]) as partial:
                    save_file({"keys": one.half().cpu().contiguous(), "cls": token.half().cpu()}, partial)
        kept = [load_file(file) for file in files]
        return tuple(torch.stack([one[name] for one in kept]).float().to(frames.device) for name in ("keys", "cls"))

    def place(self, frame: Tensor) -> Path:
        pixels = frame.cpu().contiguous().numpy()
        name = hashlib.blake2b(f"{self.name} {pixels.shape} ".encode() + pixels.tobytes(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"
