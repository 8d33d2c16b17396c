"""Muon for matrices, AdamW for the rest.

Muon replaces a matrix's momentum by the nearest half-orthogonal matrix, found by a few Newton-Schulz
steps (Jordan et al. 2024, kellerjordan.github.io/posts/muon). Stacked experts [E, out, in] are
orthogonalised one by one in a single batched product, gate and up apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

# Jordan's coefficients: five steps bring singular values into about 0.7..1.2.
COEFFICIENTS, STEPS = (3.4445, -4.7750, 2.0315), 5


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The approximately half-orthogonal neighbour of each matrix in [..., rows, columns], in bf16."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = (matrix.mT if tall else matrix).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; the step is scaled to AdamW's usual size."""

    def __init__(
        self, params: list[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.05
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                wanted = p.grad.lerp(state["momentum"], group["momentum"])
                # Stacked experts hold gate over up: two matrices, not one.
                halves = wanted.chunk(2, dim=1) if p.ndim == 3 and p.shape[1] < p.shape[2] else (wanted,)
                update = torch.cat([orthogonal(half) for half in halves], dim=-2).to(p.dtype)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * max(halves[0].shape[-2:]) ** 0.5)


def optimizers(
    model: torch.nn.Module, lr: float, others: Sequence[str] = ("embed", "mlp.gate.")
) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices; AdamW for the norms and what has one of ``others`` in its name."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    hidden = [p for n, p in named if p.ndim >= 2 and not any(part in n for part in others)]
    chosen = {id(p) for p in hidden}
    rest = [p for _, p in named if id(p) not in chosen]
    return [Muon(hidden, lr), torch.optim.AdamW(rest, lr, betas=(0.9, 0.95), weight_decay=0.0)]
