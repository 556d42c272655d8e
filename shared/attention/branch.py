"""Attention over the instances of a bag: gated, with branches, and with the strongest instances masked at random.

House notation: B batch of bags, N instances, C width of an instance, M branches, D width of the scores' hidden layer, K
the number of strongest instances that may be masked.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shared.attention.functional import masked_softmax
from shared.attention.record import capture
from shared.attention.registry import Mechanism, register

Embed = Callable[[Tensor], Tensor]


class BranchAttention(nn.Module):
    """Pools a bag once for each branch, by weights that the branch gives the instances.

    l_mn = w_m . (tanh(V x_n) * sigmoid(U x_n)),  a_m = softmax_n(l_m),  z_m = sum_n a_mn x_n

    In training, and wherever `draw` is given, some of the `top` strongest instances of each branch are closed before
    the softmax, so that the rest has to explain the bag (STKIM, stochastic top-k instance masking).

    Arguments:
        gated: False takes the sigmoid away (ABMIL without gates).
        top: K of STKIM; 0 is none. masked: the share p of them that is closed. fraction: K is at most this share of a
            bag, rounded up; 1 is the paper's. bernoulli: each of the K is closed with chance p, instead of int(K p) of
            them.
        chunk: instances at a time, where the bag has more.

    Shape:
        x (B, N, C) -> (B, M, C). `keep` (B, N): False closes an instance (padding). `draw` broadcastable to (B, M, K):
        uniform numbers that decide which of the strongest are closed. Recorded map: (B, M, N).
    Reference:
        Ilse et al. 2018, Attention-based deep MIL, arXiv 1802.04712, section 2.4; Zhang et al. 2024, ACMIL, arXiv
        2311.07125, sections 3.2 (branches) and 3.3 (STKIM).
    Deviations:
        The paper closes each of the K with chance p; the authors' code closes exactly int(K p) of them, as here unless
        `bernoulli`. The code's logits have a bias a branch, which the softmax takes away again; there is none here.
        The code sets closed logits to -1e9, here their weight is exactly 0. With `bernoulli` a bag that would be closed
        whole stays open.
    Complexity:
        O(N C D) time. A long bag is read in chunks with a running softmax: memory O(chunk C + M N), and with `embed` of
        `pool` the embedded bag is never held whole. In training each chunk is read again in the backward pass instead
        of kept, and with masking once more before, to know the strongest.
    """

    def __init__(
        self,
        dim: int,
        branches: int = 1,
        hidden: int = 128,
        *,
        gated: bool = True,
        top: int = 0,
        masked: float = 0.6,
        fraction: float = 1.0,
        bernoulli: bool = False,
        chunk: int = 4096,
    ) -> None:
        super().__init__()
        self.score = nn.Linear(dim, hidden)
        self.gate = nn.Linear(dim, hidden) if gated else None
        self.weigh = nn.Linear(hidden, branches, bias=False)
        self.top, self.masked, self.fraction, self.bernoulli, self.chunk = top, masked, fraction, bernoulli, chunk

    def forward(self, x: Tensor, keep: Tensor | None = None, draw: Tensor | None = None) -> Tensor:
        return self.pool(x, keep, draw)[0]

    def pool(
        self, x: Tensor, keep: Tensor | None = None, draw: Tensor | None = None, embed: Embed | None = None
    ) -> tuple[Tensor, Tensor]:
        """The pooled bag (B, M, C) and the weights (B, M, N). `embed` maps instances (B, n, any) to (B, n, C) first."""
        masking = self.top > 0 and (self.training or draw is not None)
        way = self._direct if x.shape[1] <= self.chunk else self._in_chunks
        pooled, weights = way(x, keep, draw if masking else None, embed or nn.Identity(), masking)
        capture(self, weights)
        return pooled, weights

    def logits(self, x: Tensor) -> Tensor:
        """(B, n, C) -> (B, n, M)."""
        hidden = torch.tanh(self.score(x))
        return self.weigh(hidden if self.gate is None else hidden * torch.sigmoid(self.gate(x)))

    def _direct(self, x: Tensor, keep: Tensor | None, draw, embed: Embed, masking: bool) -> tuple[Tensor, Tensor]:
        x = embed(x)
        logits = self.logits(x).mT
        weights = masked_softmax(logits, self._open(logits, keep, draw, masking))
        return weights @ x, weights

    def _open(self, logits: Tensor, keep: Tensor | None, draw: Tensor | None, masking: bool) -> Tensor | None:
        """Which weights are not 0 (B, 1 or M, N)."""
        mask = None if keep is None else keep[:, None, :]
        if not masking:
            return mask
        stays = mask_top(
            logits, keep, draw, top=self.top, masked=self.masked, fraction=self.fraction, bernoulli=self.bernoulli
        )
        return stays if mask is None else stays & mask

    def _in_chunks(self, x: Tensor, keep: Tensor | None, draw, embed: Embed, masking: bool) -> tuple[Tensor, Tensor]:
        """Of each chunk its highest logit, the sum of its weights and their sum of x; these make the softmax."""
        parts, mask = x.split(self.chunk, 1), None if keep is None else keep[:, None, :]
        if masking:  # the strongest of the whole bag are known only when it has been read
            with torch.no_grad():
                mask = self._open(torch.cat([self.logits(embed(part)).mT for part in parts], -1), keep, draw, masking)

        def read(part: Tensor, stays: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            part = embed(part)
            logits = self.logits(part).mT
            if stays is not None:
                logits = logits.masked_fill(~stays, torch.finfo(logits.dtype).min)
            high = logits.detach().amax(-1, keepdim=True)  # takes no part in the gradient: it cancels out
            weights = (logits - high).exp()
            weights = weights if stays is None else weights * stays
            return logits, high, weights.sum(-1, keepdim=True), weights @ part

        found = []
        for number, part in enumerate(parts):
            stays = None if mask is None else mask[..., number * self.chunk : number * self.chunk + part.shape[1]]
            if torch.is_grad_enabled():  # read again in the backward pass, and not kept
                found.append(checkpoint(read, part, stays, use_reentrant=False))
            else:
                found.append(read(part, stays))
        logits = torch.cat([one[0] for one in found], -1)
        high, mass, summed = (torch.stack([one[index] for one in found]) for index in (1, 2, 3))
        highest = high.amax(0)
        scale = (high - highest).exp()
        total = (mass * scale).sum(0).clamp_min(1)  # the highest has 1; less is a bag of which nothing is open
        pooled, weights = (summed * scale).sum(0), (logits - highest).exp() / total
        return pooled / total, weights if mask is None else weights * mask


@torch.no_grad()
def mask_top(
    logits: Tensor,
    keep: Tensor | None = None,
    draw: Tensor | None = None,
    *,
    top: int = 10,
    masked: float = 0.6,
    fraction: float = 1.0,
    bernoulli: bool = False,
) -> Tensor:
    """Which instances stay open when some of each branch's strongest are closed: logits (B, M, N) -> (B, M, N) bool.

    The arguments are those of `BranchAttention`; without `draw` it is drawn here. Something always stays open.
    """
    count = min(top, logits.shape[-1])
    ranked = logits if keep is None else logits.masked_fill(~keep[:, None], -torch.inf)
    strongest = ranked.topk(count, -1).indices
    size = torch.tensor(logits.shape[-1], device=logits.device) if keep is None else keep.sum(-1)[:, None, None]
    among = (size * fraction - 1e-4).ceil().clamp(max=count)  # K of each bag
    if draw is None:
        draw = torch.rand(strongest.shape, device=logits.device)
    draw = draw[..., :count].expand(strongest.shape)
    eligible = torch.arange(count, device=logits.device) < among
    if bernoulli:
        closed = eligible & (draw < masked)
        closed = closed & (closed.sum(-1, keepdim=True) < size)
    else:
        order = draw.masked_fill(~eligible, torch.inf).argsort(-1).argsort(-1)
        closed = eligible & (order < (among * masked + 1e-6).floor())
    return torch.ones_like(logits, dtype=torch.bool).scatter(-1, strongest, ~closed)


def branch_overlap(weights: Tensor) -> Tensor:
    """How alike the branches' maps are: the mean cosine over their pairs, (B, M, N) -> (B,); 0 for one branch.

    mean over m < k of a_m . a_k / (|a_m| |a_k|)

    Reference: Zhang et al. 2024, ACMIL, arXiv 2311.07125, section 3.2, the diversity loss.
    """
    branches = weights.shape[1]
    if branches == 1:
        return weights.new_zeros(weights.shape[0])
    unit = F.normalize(weights, dim=-1)
    cosines = unit @ unit.mT
    pairs = torch.triu(torch.ones(branches, branches, dtype=torch.bool, device=weights.device), 1)
    return (cosines * pairs).sum((-2, -1)) / (branches * (branches - 1) / 2)


def plain_branch_attention(
    module: BranchAttention, x: Tensor, keep: Tensor | None = None, draw: Tensor | None = None
) -> Tensor:
    """`BranchAttention` written plainly from its equation, a bag and a branch at a time: the reference of its tests."""
    bags = []
    for b in range(len(x)):
        bag = x[b] if keep is None else x[b][keep[b]]
        hidden = torch.tanh(bag @ module.score.weight.T + module.score.bias)
        if module.gate is not None:
            hidden = hidden * torch.sigmoid(bag @ module.gate.weight.T + module.gate.bias)
        branches = []
        for w in module.weigh.weight:
            logits, stay = hidden @ w, list(range(len(bag)))
            if draw is not None and len(bag):
                among = min(module.top, -int(-len(bag) * module.fraction // 1))
                values = logits.tolist()
                strongest = sorted(stay, key=lambda n, values=values: -values[n])[:among]
                closing = sorted(range(among), key=lambda k, b=b: float(draw[b, 0, k]))[: int(among * module.masked)]
                stay = [n for n in stay if n not in {strongest[k] for k in closing}]
            weights = logits[stay].exp() / logits[stay].exp().sum() if len(bag) else logits
            branches.append(weights @ bag[stay])
        bags.append(torch.stack(branches))
    return torch.stack(bags)


def _inputs(batch: int, length: int, dim: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"x": torch.randn(batch, length, dim, generator=generator, dtype=torch.float64)}


def _inputs_and_draw(batch: int, length: int, dim: int, generator: torch.Generator) -> dict[str, Tensor]:
    draw = torch.rand(batch, 1, 8, generator=generator, dtype=torch.float64)
    return {**_inputs(batch, length, dim, generator), "draw": draw}


for _gated, _name in ((True, "gated branches"), (False, "branches without gates")):
    register(
        Mechanism(
            name=_name,
            build=lambda dim, heads, gated=_gated: BranchAttention(dim, heads, 6, gated=gated, chunk=5),
            inputs=_inputs,
            reference=plain_branch_attention,
            paper="Ilse et al. 2018, arXiv 1802.04712, section 2.4; Zhang et al. 2024, arXiv 2311.07125, section 3.2",
            mask="keep",
            pooled=True,
        )
    )
register(
    Mechanism(
        name="stochastic top-k masking",
        build=lambda dim, heads: BranchAttention(dim, heads, 6, top=8, fraction=0.5, chunk=5),
        inputs=_inputs_and_draw,
        reference=plain_branch_attention,
        paper="Zhang et al. 2024, arXiv 2311.07125, section 3.3",
        mask="keep",
        pooled=True,
    )
)
