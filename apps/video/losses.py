"""What the temporal block and the slots learn from, without labels.

House notation: B clips, T frames, N tokens of a frame, Q queries, K semantics, C channels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-8


def drawn(draws: Tensor, *shape: int) -> Tensor:
    """Standard normal (B, *shape): what a clip gets depends on its own draw (B,) alone, on every device."""
    clips = [torch.randn(shape, generator=torch.Generator().manual_seed(draw)) for draw in draws.tolist()]
    return torch.stack(clips).to(draws.device)


def pick_queries(noise: Tensor, queries: int) -> Tensor:
    """Random tokens of each frame: noise (B, T, N) -> (B, T Q), as places in the row of all T N tokens."""
    frames, tokens = noise.shape[1:]
    places = noise.topk(min(queries, tokens), -1).indices
    return (places + torch.arange(frames, device=noise.device)[:, None] * tokens).flatten(1)


def consistency(
    tokens: Tensor,
    rows: Tensor,
    frames: int,
    queries: Tensor,
    *,
    like: int = 30,
    unlike: int = 200,
    near: int = 10,
    far: int = 50,
    margin: float = 1.0,
    temperature: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Semantic and motion consistency of SSL-UVOS: tokens (B, T N, C), rows (B, T N, T N), queries (B, Q).

    Semantic: in each frame, the mean of the `like` tokens that a query attends to most lies closer to it than that of
    the `unlike` it attends to least: -log softmax of the two cosines / temperature.
    Motion: in the query's own frame, the mean of tokens weighted by attention is the centre c; with squared distances,
    max(0, d(c, top `near`) - d(c, last `far`) + margin), each query weighted by softmax(-entropy of its row).

    Reference: Ding et al. 2024, arXiv 2311.17893. Deviations: where frames have few tokens, the numbers shrink to a
    third of them (unlike, far) and a tenth (like, near). Complexity: O(Q T N (C + log N)).
    """
    batch, count = tokens.shape[0], tokens.shape[1] // frames
    like, near = max(1, min(like, count // 10)), max(1, min(near, count // 10))
    unlike, far = max(1, min(unlike, count // 3)), max(1, min(far, count // 3))
    z = F.normalize(tokens, dim=-1)
    at = queries[..., None]
    asked = z.gather(1, at.expand(-1, -1, z.shape[-1]))  # (B, Q, C)
    row = rows.gather(1, at.expand(-1, -1, rows.shape[-1])).unflatten(-1, (frames, count))  # (B, Q, T, N)
    order = row.detach().argsort(-1, descending=True)
    by_frame = z.unflatten(1, (frames, count))  # (B, T, N, C)

    def mean_of(places: Tensor) -> Tensor:  # (B, Q, T, n) -> (B, Q, T, C)
        chosen = torch.zeros_like(row).scatter(-1, places, 1.0 / places.shape[-1])
        return torch.einsum("bqtn,btnc->bqtc", chosen, by_frame)

    good = (asked[:, :, None] * F.normalize(mean_of(order[..., :like]), dim=-1)).sum(-1)
    bad = (asked[:, :, None] * F.normalize(mean_of(order[..., -unlike:]), dim=-1)).sum(-1)
    semantic = -F.logsigmoid((good - bad) / temperature).mean()

    own = (queries // count)[..., None, None].expand(-1, -1, 1, count)
    here = row.gather(2, own)[:, :, 0]  # (B, Q, N)
    share = here / here.sum(-1, keepdim=True).clamp_min(TINY)
    frame_tokens = by_frame[torch.arange(batch, device=z.device)[:, None], queries // count]  # (B, Q, N, C)
    centre = torch.einsum("bqn,bqnc->bqc", share, frame_tokens)
    apart = (frame_tokens - centre[:, :, None]).square().sum(-1)
    places = here.detach().argsort(-1, descending=True)
    close, distant = (apart.gather(-1, part).mean(-1) for part in (places[..., :near], places[..., -far:]))
    entropy = -(share.clamp_min(TINY).log() * share).sum(-1)
    weight = (-entropy.detach()).softmax(-1)
    motion = (weight * F.relu(close - distant + margin)).sum(-1).mean()
    return semantic, motion


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Balanced soft assignment: scores (..., N, K) -> (..., N, K), rows that sum to one, columns about equally used.

    Reference: Caron et al. 2020 (SwAV), arXiv 2006.09882, section 3.1.
    """
    log = scores.float() / epsilon
    for _ in range(iterations):
        log = log - log.logsumexp(-2, keepdim=True)  # each of the K gets as much
        log = log - log.logsumexp(-1, keepdim=True)  # and each token gives one
    return log.exp()


def transport_loss(tokens: Tensor, slots: Tensor, teacher_tokens: Tensor, teacher_slots: Tensor) -> Tensor:
    """Cross-entropy of the tokens' likeness to one frame's semantics against the teacher's transport to its own.

    Shape: tokens (B, N, C) of a frame and slots (B, K, C) of another; the teacher's are both of the tokens' frame.
    """
    target = sinkhorn(_cosines(teacher_tokens, teacher_slots))
    return -(target * (_cosines(tokens, slots) / 0.1).log_softmax(-1)).sum(-1).mean()


def overlap(masks: Tensor) -> Tensor:
    """The mean cosine of different masks: (B, K, N) -> a number, 0 where no two share a token."""
    alike = _cosines(masks, masks)
    count = masks.shape[1]
    off = alike.sum((-2, -1)) - alike.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (off / max(1, count * (count - 1))).mean()


def instance_contrast(a: Tensor, b: Tensor, temperature: float = 0.1) -> Tensor:
    """Instances of two frames, (B, P, C) each, told apart after Hungarian matching of their cosines."""
    from scipy.optimize import linear_sum_assignment

    scores = _cosines(a, b)
    targets = [linear_sum_assignment(-one)[1] for one in scores.detach().float().cpu().numpy()]
    wanted = torch.stack([torch.as_tensor(target) for target in targets]).to(a.device)
    return F.cross_entropy((scores / temperature).flatten(0, 1), wanted.flatten())


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).transpose(-2, -1)
