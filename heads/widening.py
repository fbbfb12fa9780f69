"""Room for classes that a trained head did not have: what is added, and what stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..zoo.errors import ConfigError
from ..zoo.taxonomy import Taxonomy
from .codes import CodeName, Order, dual, orthogonal_codes, positions, sinusoidal_codes

if TYPE_CHECKING:
    from .gen_ser import GenSERHead


@torch.no_grad()
def wider_rows(rows: Tensor, n: int) -> Tensor:
    """``[C, ...]`` to ``[n, ...]``: each new row is the mean of the old ones.

    A new class then scores amid the old ones, neither first nor last, until it is trained; several
    new ones are alike until then. Nothing is drawn. Our choice.
    """
    new = rows.mean(0, keepdim=True).expand(n - len(rows), *rows.shape[1:])
    return torch.cat([rows, new])


def wider_linear(layer: nn.Linear, n: int) -> nn.Linear:
    """A linear layer with as many outputs as ``n``; the old ones are as before."""
    wider = nn.Linear(layer.in_features, n, device=layer.weight.device, dtype=layer.weight.dtype)
    wider.weight = nn.Parameter(wider_rows(layer.weight, n))
    wider.bias = nn.Parameter(wider_rows(layer.bias, n))
    return wider


@torch.no_grad()
def wider_codes(
    old: Tensor,
    trained: Taxonomy,
    n: int,
    *,
    codes: CodeName,
    spacing: float,
    base: float,
    order: Order,
) -> Tensor:
    """``[C, d]`` codes to ``[n, d]``: the old ones to the bit, and a code for each further class.

    Sinusoidal: at the positions behind the last one. One-hot: the next unit vectors. Orthogonal
    and learned: directions at right angles to all old codes and to each other. All of the norm
    that codes have.

    Args:
        old: the codes of the trained classes.
        trained: these classes.
        n: classes thereafter.
        codes: the kind of the old ones; this and the rest as for :func:`.codes.build_codes`.
        spacing: of sinusoidal positions.
        base: of sinusoidal wavelengths.
        order: of the old classes along the positions.

    Raises:
        ConfigError: when the codes are too narrow for so many directions.
    """
    C, d = old.shape
    if codes == "sinusoidal":
        last = max(positions(trained, order))
        new = sinusoidal_codes(n - C, d, spacing, base, [last + 1 + i for i in range(n - C)])
    elif d < n:
        raise ConfigError(
            f"codes of width {d} have no room for {n} classes at right angles (codes={codes}); "
            f"train with head.code_dim={n + n % 2} or more, or give a taxonomy of fewer new classes"
        )
    elif codes == "one_hot":
        new = (d / 2) ** 0.5 * torch.eye(n, d)[C:]
    else:
        drawn = orthogonal_codes(n - C, d, seed=C).double()
        both = torch.cat([old.detach().cpu().double(), drawn]).T
        new = ((d / 2) ** 0.5 * torch.linalg.qr(both).Q.T[C:]).float()
    return torch.cat([old, new.to(old)])


def widen_gen_ser(head: GenSERHead, taxonomy: Taxonomy) -> None:
    """A code for each further class; a row of the readout under ``objective=ce``.

    Learned codes then learn no more.
    """
    if head.objective == "ce":
        head.readout = wider_linear(head.readout, len(taxonomy))
        return
    made = wider_codes(head.get_buffer("codes"), head.taxonomy, len(taxonomy), **head.coding)
    head.register_buffer("codes", made)
    if head.decision == "gram":
        head.register_buffer("dual", dual(made))
    if head.learned is not None:
        head.learned.widen(made)
