"""A vision transformer in DINO's format: official files by their own names, timm's too, and small ones of our own.

House notation: B batch, N tokens (cells of the grid), C channels, h and w cells.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.attention.functional import attend, merge_heads, plain_attention, split_heads
from shared.attention.record import capture, recording
from shared.errors import InputError
from shared.io.files import input_file

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as DINO was trained


class VisionTransformer(nn.Module):
    """Images to a class token, patch tokens, and the keys of the last layer; the parameters have DINO's names.

    x <- x + Attention(LN(x)); x <- x + MLP(LN(x)), depth times, on [cls; patches] + positions; then LN.

    Shape:
        images (B, 3, H, W), normalised; H and W divisible by `patch`. forward -> class token (B, C).
        features -> cls (B, C), tokens (B, N, C), keys (B, N, C): the keys of the last layer, all heads side by side,
        with N = (H / patch) (W / patch). Recorded map of a layer: (B, H, 1 + N, 1 + N).
    Reference:
        Dosovitskiy et al. 2021, arXiv 2010.11929, section 3.1; Caron et al. 2021 (DINO), arXiv 2104.14294.
    Deviations:
        Positions are interpolated (bicubic) to the exact grid by its size; DINO's code gives a scale factor with an
        offset of 0.1, which agrees to about 1e-3. No dropout and no stochastic depth.
    Complexity:
        O(depth (N^2 C + N C^2)).
    """

    def __init__(self, patch: int, dim: int, depth: int, heads: int, grid: int = 14) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by {heads} heads")
        self.patch, self.dim, self.grid = patch, dim, grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        return self._through(images)[0][:, 0]

    def features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, keys = self._through(images)
        return x[:, 0], x[:, 1:], keys[:, 1:]

    def _through(self, images: Tensor) -> tuple[Tensor, Tensor]:
        h, w = images.shape[-2] // self.patch, images.shape[-1] // self.patch
        if (h * self.patch, w * self.patch) != tuple(images.shape[-2:]) or not h * w:
            raise ValueError(f"{tuple(images.shape[-2:])} pixels are no multiple of the patch of {self.patch}")
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], 1) + self.positions(h, w)
        keys = x
        for block in self.blocks:
            x, keys = block(x)
        return self.norm(x), keys

    def positions(self, h: int, w: int) -> Tensor:
        """The position codes (1, 1 + h w, C) of a grid."""
        if (h, w) == (self.grid, self.grid):
            return self.pos_embed
        grid = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, (h, w), mode="bicubic", align_corners=False)
        return torch.cat([self.pos_embed[:, :1], grid.flatten(2).transpose(1, 2)], 1)


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = _Attention(dim, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out, keys = self.attn(self.norm1(x))
        x = x + out
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)))), keys


class _Attention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        if recording():
            out, weights = plain_attention(q, k, v)
            capture(self, weights)
        else:
            out = attend(q, k, v)
        return self.proj(merge_heads(out)), merge_heads(k)


def architecture_of(state: dict[str, Tensor]) -> dict[str, int]:
    """The arguments of `VisionTransformer` that fit a state dictionary. Raises KeyError or ValueError for another."""
    dim, _, patch, _ = state["patch_embed.proj.weight"].shape
    grid = round((state["pos_embed"].shape[1] - 1) ** 0.5)
    depth = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    # DINO's heads are 64 wide in all sizes; a file does not say how many there are.
    return {"patch": patch, "dim": dim, "depth": depth, "heads": max(1, dim // 64), "grid": grid}


def load_dino(path: Path) -> VisionTransformer:
    """The backbone in an official DINO file, a full DINO checkpoint (its teacher), or timm's file of the same model.

    `dino_deitsmall16_pretrain.pth`, `dino_vitbase8_pretrain.pth` and the like, .pth or .safetensors. Never unpickles
    more than tensors. Raises InputError for another file.
    """
    state = _read_state(input_file(path))
    for key in ("teacher", "student", "state_dict", "model"):
        if isinstance(state.get(key), dict):
            state = state[key]
    clean = {}
    for name, value in state.items():
        for prefix in ("module.", "backbone."):
            name = name.removeprefix(prefix)
        if isinstance(value, Tensor) and not name.startswith(("head.", "fc_norm.")):  # what maps to DINO's prototypes
            clean[name] = value.float()
    try:
        model = VisionTransformer(**architecture_of(clean))
        model.load_state_dict(clean)
    except (KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: is no ViT in DINO's format ({reason}); give dino_deitsmall16_pretrain.pth") from None
    return model


def _read_state(path: Path) -> dict:
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return dict(safetensors.torch.load(path.read_bytes()))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:80]
        raise InputError(f"{path}: is damaged, or holds more than tensors ({reason}); download it again") from None
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds no state dictionary; give a file such as dino_deitsmall16_pretrain.pth")
    return state
