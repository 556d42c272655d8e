"""A large bag read in chunks with a running softmax, against the direct form that holds every step whole.

One bag of 1,024 features an instance, as a foundation model's; first layer of 512, gated attention of 128 with five
branches. Inference is the pooled bag. A training step is a forward and a backward pass; nothing is masked. The third
form is the first under autocast to bfloat16, which rounds: it is the same to two digits only.
"""

from collections.abc import Callable

FEATURES, WIDTH, HIDDEN, BRANCHES, CHUNK = 1024, 512, 128, 5, 4096
FORMS = ("chunked", "direct", "chunked, bfloat16")
SAME = FORMS[:2]
AXIS = "instances"
SIZES = (5_000, 25_000, 50_000, 100_000)
MODES = ("inference", "training step")


def prepare(form: str, size: int, mode: str) -> Callable[[], object] | None:
    import torch
    from torch import nn

    from shared.attention.branch import BranchAttention

    torch.manual_seed(0)
    reduce = nn.Linear(FEATURES, WIDTH, bias=False)
    attention = BranchAttention(WIDTH, BRANCHES, HIDDEN)
    bag = torch.randn(1, size, FEATURES)

    def embed(x: torch.Tensor) -> torch.Tensor:
        return torch.relu_(reduce(x))

    def direct(x: torch.Tensor) -> torch.Tensor:
        """As the equations read, and as released code does it: every step for all instances before the next."""
        h = torch.relu(reduce(x))
        assert attention.gate is not None
        hidden = torch.tanh(attention.score(h)) * torch.sigmoid(attention.gate(h))
        return attention.weigh(hidden).mT.softmax(-1) @ h

    def chunked(x: torch.Tensor) -> torch.Tensor:
        return attention.pool(x, embed=embed)[0]

    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=form == FORMS[2]):
            return direct(x) if form == "direct" else chunked(x)

    def work(bag: torch.Tensor = bag) -> torch.Tensor:
        if mode == "inference":
            with torch.inference_mode():
                return forward(bag)
        for parameter in (*reduce.parameters(), *attention.parameters()):
            parameter.grad = None
        forward(bag).square().sum().backward()
        assert reduce.weight.grad is not None
        return reduce.weight.grad

    attention.chunk = 8
    work(bag[:, :16])  # libraries load their parts before memory is read
    attention.chunk = CHUNK
    return work
