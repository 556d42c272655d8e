"""The loader against the exact names and shapes of DINO's official files, which are generated here: none is at hand."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from shared.attention.record import record_attention
from shared.encoders.vit import VisionTransformer, architecture_of, load_dino
from shared.errors import InputError


def official(dim: int = 384, depth: int = 12, patch: int = 16, grid: int = 14) -> dict[str, torch.Tensor]:
    """As `dino_deitsmall16_pretrain.pth`: 150 tensors, 21.7 M numbers."""
    shapes = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, grid * grid + 1, dim),
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
    }
    for i in range(depth):
        block = {
            "norm1": (dim,),
            "attn.qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            "norm2": (dim,),
            "mlp.fc1": (4 * dim, dim),
            "mlp.fc2": (dim, 4 * dim),
        }
        for name, shape in block.items():
            shapes[f"blocks.{i}.{name}.weight"] = shape
            shapes[f"blocks.{i}.{name}.bias"] = shape[:1]
    torch.manual_seed(0)
    return {name: torch.randn(shape) * 0.02 for name, shape in shapes.items()}


def written_plainly(state: dict[str, torch.Tensor], images: torch.Tensor, heads: int) -> tuple[torch.Tensor, ...]:
    """The whole network from its equations, by functional calls alone: (cls, tokens, keys)."""
    patch = state["patch_embed.proj.weight"].shape[-1]
    x = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], patch)
    x = torch.cat([state["cls_token"].expand(len(images), -1, -1), x.flatten(2).transpose(1, 2)], 1)
    x = x + state["pos_embed"]
    keys = x
    for i in range(architecture_of(state)["depth"]):
        part = {name.removeprefix(f"blocks.{i}."): v for name, v in state.items() if name.startswith(f"blocks.{i}.")}
        y = F.layer_norm(x, x.shape[-1:], part["norm1.weight"], part["norm1.bias"], 1e-6)
        y = F.linear(y, part["attn.qkv.weight"], part["attn.qkv.bias"])
        q, keys, v = y.chunk(3, -1)
        q, k, v = (z.unflatten(-1, (heads, -1)).transpose(1, 2) for z in (q, keys, v))
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        y = (weights @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(y, part["attn.proj.weight"], part["attn.proj.bias"])
        y = F.layer_norm(x, x.shape[-1:], part["norm2.weight"], part["norm2.bias"], 1e-6)
        y = F.gelu(F.linear(y, part["mlp.fc1.weight"], part["mlp.fc1.bias"]))
        x = x + F.linear(y, part["mlp.fc2.weight"], part["mlp.fc2.bias"])
    x = F.layer_norm(x, x.shape[-1:], state["norm.weight"], state["norm.bias"], 1e-6)
    return x[:, 0], x[:, 1:], keys[:, 1:]


@pytest.fixture(scope="module")
def small16(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    path, state = tmp_path_factory.mktemp("dino") / "dino_deitsmall16_pretrain.pth", official()
    torch.save(state, path)
    return path, state


def test_an_official_file_loads_whole_and_computes_what_the_equations_say(small16) -> None:
    path, state = small16
    model = load_dino(path).eval()
    assert sum(p.numel() for p in model.parameters()) == 21_665_664
    assert len(model.state_dict()) == 150
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        for got, expected in zip(model.features(images), written_plainly(state, images, 6), strict=True):
            torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-4)


def test_other_patches_and_sizes_are_told_from_the_shapes() -> None:
    state = official(768, 2, 8, 28)
    assert architecture_of(state) == {"patch": 8, "dim": 768, "depth": 2, "heads": 12, "grid": 28}


def small(tmp_path: Path, change=lambda state: state, name: str = "vit.pth") -> Path:
    torch.save(change(official(64, 2, 16, 4)), tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {"teacher": {f"backbone.{n}": v for n, v in s.items()} | {"head.mlp.0.weight": torch.zeros(2, 2)}},
        lambda s: {"student": {f"module.backbone.{n}": v for n, v in s.items()}, "epoch": 3},
        lambda s: {"model": s | {"head.weight": torch.zeros(9, 64), "head.bias": torch.zeros(9)}},
    ],
    ids=["checkpoint", "student", "timm"],
)
def test_checkpoints_and_timm_files(tmp_path: Path, change) -> None:
    model = load_dino(small(tmp_path, change))
    expected = official(64, 2, 16, 4)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file(official(64, 2, 16, 4), tmp_path / "model.safetensors")
    assert load_dino(tmp_path / "model.safetensors").dim == 64


def test_any_grid_and_a_recording_that_changes_nothing(tmp_path: Path) -> None:
    model = load_dino(small(tmp_path)).eval()
    images = torch.randn(2, 3, 48, 80)
    with torch.no_grad():
        cls, tokens, keys = model.features(images)
        with record_attention(model) as maps:
            torch.testing.assert_close(model(images), cls)
    assert tokens.shape == keys.shape == (2, 15, 64)
    assert maps["blocks.1.attn"][0].shape == (2, 1, 16, 16)
    with pytest.raises(ValueError, match="no multiple"):
        model(torch.randn(1, 3, 50, 80))
    with pytest.raises(ValueError, match="not divisible"):
        VisionTransformer(16, 10, 1, 3)


class Hostile:
    def __reduce__(self):
        return (print, ("run",))


def test_what_is_no_such_file_gets_one_line(tmp_path: Path) -> None:
    torch.save({"a": Hostile()}, tmp_path / "hostile.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("hello")
    lacking = small(tmp_path, lambda s: {n: v for n, v in s.items() if "blocks.1.mlp" not in n}, "lacking.pth")
    other = small(tmp_path, lambda s: {"conv1.weight": torch.zeros(3)}, "other.pth")
    for path in (tmp_path / "hostile.pth", tmp_path / "list.pth", tmp_path / "text.pth", lacking, other):
        with pytest.raises(InputError) as caught:
            load_dino(path)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
