"""The boundary-matching network, with attention between its encoder and its heads.

House notation: B batch, T snippets, C channels, R channels of the class semantics, D snippets of the longest proposal.
"""

from typing import Literal

from torch import Tensor, nn

from apps.action.boundary_matching import BoundaryMatching, spread
from shared.attention.semantics import ClassSemanticsAttention, SqueezeExcitation, closed, convolved


class BoundaryMatchingNetwork(nn.Module):
    """Boundaries, proposals and classes of a window of snippets.

    F = attention(encoder(x), R) feeds every head: boundaries (start and end of each snippet), proposals (two maps over
    duration and start, by boundary matching and convolution), and snippet classes.

    Shape:
        x (B, T, channels); semantics (B, T, R), left out: x itself; keep (B, T), False closes padding. Returns logits:
        `start`, `end` (B, T), `classification`, `regression` (B, D, T) with D = min(longest, T), and `classes`
        (B, T, classes + 1), background last. Without `proposals` only `classes`. Any T is served.
    Reference:
        Lin et al. 2019, BMN, arXiv 1907.09702, section 3.3; Sridhar et al. 2021, arXiv 2109.02613 for the attention's
        place: one block after the encoder, its output feeds all heads.
    Deviations:
        Widths are arguments (the paper: 256, 128 and 512, 128). The encoder has residual layers of rising dilation, as
        temporal convolutional networks have (the paper: two convolutions of width 3), so that a snippet is seen in the
        order of what is done before and after it. The snippet classes are ours: BMN takes them from another classifier.
    Complexity:
        O(T C^2 + D T proposal^2) time beside the boundary-matching layer's.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        semantics_channels: int = 0,
        attention: Literal["none", "se", "csa", "se+csa"] = "csa",
        dim: int = 64,
        layers: int = 5,
        longest: int = 50,
        bins: int = 32,
        matching: int = 48,
        proposal: int = 24,
        semantics: int = 32,
        dropout: float = 0.3,
        proposals: bool = True,
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(channels, dim)
        self.layers = nn.ModuleList([DilatedLayer(dim, 2**i, dropout) for i in range(layers)])
        self.excitation = SqueezeExcitation(dim, max(1, dim // 4)) if "se" in attention.split("+") else None
        self.semantics = (
            ClassSemanticsAttention(dim, semantics_channels or channels, semantics) if "csa" in attention else None
        )
        self.classes = nn.Linear(dim, classes + 1)
        self.boundaries = SnippetHead(dim, 2) if proposals else None
        self.proposals = ProposalHead(dim, longest, bins, matching, proposal) if proposals else None

    def forward(self, x: Tensor, semantics: Tensor | None = None, keep: Tensor | None = None) -> dict[str, Tensor]:
        hidden = self.encode(x, semantics, keep)
        out = {"classes": self.classes(hidden)}
        if self.boundaries is not None and self.proposals is not None:
            out["start"], out["end"] = self.boundaries(hidden, keep).unbind(-1)
            out["classification"], out["regression"] = self.proposals(hidden)
        return out

    def encode(self, x: Tensor, semantics: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """F (B, T, C), after the attention."""
        hidden = self.enter(x)
        for layer in self.layers:
            hidden = layer(hidden, keep)
        hidden = closed(hidden, keep)
        if self.excitation is not None:
            hidden = self.excitation(hidden, keep)
        if self.semantics is not None:
            hidden = self.semantics(hidden, x if semantics is None else semantics, keep)
        return hidden


class DilatedLayer(nn.Module):
    """x + dropout(W ReLU(conv1x3 of x, dilated)): (B, T, C) -> (B, T, C)."""

    def __init__(self, dim: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, 3, padding=dilation, dilation=dilation)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        return x + self.dropout(self.out(convolved(self.conv, x, keep)))


class SnippetHead(nn.Module):
    """conv1x3, ReLU, linear: (B, T, C) -> (B, T, outputs)."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, 3, padding=1)
        self.out = nn.Linear(dim, outputs)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        return self.out(convolved(self.conv, x, keep))


class ProposalHead(nn.Module):
    """Boundary matching, then convolutions over duration and start: (B, T, C) -> two maps (B, D, T)."""

    def __init__(self, dim: int, longest: int, bins: int, matching: int, proposal: int) -> None:
        super().__init__()
        self.matching = BoundaryMatching(dim, matching, longest, bins)
        self.reduce = nn.Linear(matching, proposal)
        self.maps = nn.ModuleList([nn.Conv2d(proposal, proposal, 3, padding=1) for _ in range(2)])
        self.out = nn.Linear(proposal, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.reduce(self.matching.of_valid(x).relu()).relu()  # of valid proposals only: a quarter is saved
        hidden = spread(features, x.shape[1], min(self.matching.longest, x.shape[1])).permute(0, 3, 1, 2)
        for conv in self.maps:
            hidden = conv(hidden).relu()
        maps = self.out(hidden.permute(0, 2, 3, 1))
        return maps[..., 0], maps[..., 1]
