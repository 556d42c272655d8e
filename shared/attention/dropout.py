"""Dropout whose mask is cheap on a CPU, where drawing a random number for each element takes longer than a layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ByteDropout(nn.Module):
    """Dropout by random bytes: eight elements share the draw of one 64-bit number.

    out = x mask / (1 - p'), mask = byte >= 256 p', with p' = round(256 p) / 256.

    Shape:
        Any, and the same out. Outside of training and with p = 0 it returns x itself.
    Reference:
        Srivastava et al. 2014, Dropout, JMLR 15.
    Deviations:
        On a CPU the rate is the nearest multiple of 1/256 (0.5 is exact, 0.1 becomes 0.1016), and the scale fits it.
        Elsewhere it is torch's own.
    Complexity:
        One eighth of torch's draws on a CPU.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"the rate of dropout lies in [0, 1), not at {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        threshold = min(255, round(256 * self.p))
        if x.device.type != "cpu" or threshold == 0:
            return F.dropout(x, self.p, True)
        count = x.numel()
        draws = torch.empty((count + 7) // 8, dtype=torch.int64).random_(-(2**63), None)  # all 64 bits
        mask = (draws.view(torch.uint8)[:count].view(x.shape) >= threshold).to(x.dtype)
        return x * mask.mul_(256 / (256 - threshold))

    def extra_repr(self) -> str:
        return f"p={self.p}"
