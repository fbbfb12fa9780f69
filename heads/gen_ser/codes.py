"""Codes of the classes: what Gen-SER transports an utterance to, and how far apart they are.

"Sinusoidal taxonomy encoding" is from the abstract of Gen-SER (arXiv 2601.20573); positions,
spacing and base are our choice, and so are the other kinds, which are ablations. Every code of
every kind has the norm ``sqrt(d / 2)``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...zoo.core.errors import ConfigError, suggest
from ...zoo.core.taxonomy import Taxonomy
from ...zoo.core.types import Targets
from ..losses import cross_entropy

CodeName = Literal["sinusoidal", "one_hot", "orthogonal", "learned"]
Order = list[str] | list[float] | int | None

ALIKE = 0.5  # cosine of two codes from which on the decision suffers


def sinusoidal_codes(
    n_classes: int,
    dim: int,
    spacing: float = 1000.0,
    base: float = 10000.0,
    order: Sequence[float] | None = None,
) -> Tensor:
    """Codes of the classes: sinusoidal position encodings, far enough apart to be told apart.

    ``PE(p)[2i] = sin(p w_i)``, ``PE(p)[2i + 1] = cos(p w_i)``, ``w_i = base^(-2i / dim)`` at the
    position ``p_c = spacing * order[c]``. Every code has the norm ``sqrt(dim / 2)``. "Sinusoidal
    taxonomy encoding" is the abstract's (arXiv 2601.20573); the formula is that of Vaswani et al.
    (2017), and positions and spacing are our choice. Neighbours at spacing 1 have a cosine of
    0.97, and then the classes at the ends of the list are hardly ever decided for
    (:func:`decision_flips`).

    Args:
        n_classes: ``C``, at least 1.
        dim: width of a code, even.
        spacing: distance of neighbouring positions, > 0.
        base: ratio of the longest to the shortest wavelength, > 1.
        order: position of each class in units of ``spacing``; 0, 1, 2, ... by default.

    Returns:
        ``[C, dim]`` float32.

    Raises:
        ValueError: for an odd width or an order of the wrong length.
    """
    if dim % 2 or dim < 2:
        raise ValueError(f"a sinusoidal code pairs sine and cosine: dim={dim} must be even")
    places = list(range(n_classes)) if order is None else list(order)
    if len(places) != n_classes:
        raise ValueError(f"order has {len(places)} positions for {n_classes} classes")
    # float64: at position 7000 a float32 angle would already be wrong in the fourth digit
    omega = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = spacing * torch.tensor(places, dtype=torch.float64).unsqueeze(1) * omega
    codes: Tensor = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()
    return codes


def orthogonal_codes(n_classes: int, dim: int, seed: int = 0) -> Tensor:
    """``[C, dim]`` random directions at right angles, of norm ``sqrt(dim / 2)``.

    The same for every seed of a run (a draw of its own): codes are part of the method, not of the
    repetition.
    """
    g = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(dim, n_classes, generator=g, dtype=torch.float64))
    codes: Tensor = math.sqrt(dim / 2) * q.T
    return codes.float().contiguous()


def positions(taxonomy: Taxonomy, order: Order) -> list[float]:
    """Position of each class, in units of the spacing.

    Args:
        taxonomy: the classes.
        order: None: as in the taxonomy. Class names: the first is at position 0, and so on.
            Numbers: one position per class of the taxonomy. An integer: the seed of a random
            permutation, which is how a permutation is written for any taxonomy.

    Raises:
        ConfigError: where names or numbers do not fit the taxonomy.
    """
    n, names = len(taxonomy), taxonomy.classes
    if order is None:
        return [float(c) for c in range(n)]
    if isinstance(order, int):
        g = torch.Generator().manual_seed(order)
        return [float(p) for p in torch.randperm(n, generator=g).tolist()]
    if all(isinstance(item, str) for item in order):
        for name in order:
            if name not in names:
                raise ConfigError(f"order names '{name}'{suggest(str(name), names)}")
        if sorted(map(str, order)) != sorted(names):
            raise ConfigError(
                f"order names {len(order)} classes ({', '.join(map(str, order))}); name each of "
                f"{', '.join(names)} once"
            )
        return [float(list(order).index(name)) for name in names]
    if len(order) != n or len(set(order)) != n:
        raise ConfigError(
            f"order has {len(order)} positions, {len(set(order))} of them different, for {n} "
            f"classes; give a position of its own to each of {', '.join(names)}"
        )
    return [float(p) for p in order]


def build_codes(
    taxonomy: Taxonomy,
    *,
    codes: CodeName = "sinusoidal",
    code_dim: int = 128,
    spacing: float = 1000.0,
    base: float = 10000.0,
    order: Order = None,
) -> Tensor:
    """``[C, d]`` float32 codes of a configuration; learned ones as they start, orthogonal.

    Raises:
        ConfigError: for values that make no codes.
    """
    if code_dim < 2 or code_dim % 2 or spacing <= 0 or base <= 1:
        raise ConfigError(
            f"code_dim={code_dim}, spacing={spacing}, base={base}: a code pairs sine and cosine, "
            "so code_dim must be even and at least 2; spacing must be above 0 and base above 1"
        )
    n = len(taxonomy)
    if codes == "sinusoidal":
        return sinusoidal_codes(n, code_dim, spacing, base, positions(taxonomy, order))
    if order is not None:
        raise ConfigError(
            f"order={order} with codes={codes}: only sinusoidal codes have an order; set "
            "order=null, or codes=sinusoidal"
        )
    if code_dim < n:
        raise ConfigError(
            f"code_dim={code_dim} has no room for {n} codes at right angles (codes={codes}); "
            f"set code_dim to at least {n + n % 2}"
        )
    if codes == "one_hot":
        return math.sqrt(code_dim / 2) * torch.eye(n, code_dim)
    return orthogonal_codes(n, code_dim)


def gram(codes: Tensor) -> Tensor:
    """``[C, C]`` cosines between the codes ``[C, d]``."""
    unit = torch.nn.functional.normalize(codes.double(), dim=-1)
    return (unit @ unit.T).float()


def condition(codes: Tensor) -> float:
    """Condition number of the Gram matrix: 1 for codes at right angles, infinite for equal ones.

    The squared ratio of the extreme singular values of the unit codes, in float64. It is by what
    an error of the generated code may grow where a decision is corrected by the inverse.
    """
    unit = torch.nn.functional.normalize(codes.double(), dim=-1)
    values = torch.linalg.svdvals(unit)
    smallest = values[-1].item() if len(unit) <= unit.shape[1] else 0.0
    return (values[0].item() / smallest) ** 2 if smallest > 0 else math.inf


def dual(codes: Tensor) -> Tensor:
    """``G^-1 E``: what reads the shares ``p`` out of a mixture ``sum_c p_c e_c`` of the codes.

    Args:
        codes: ``E [C, d]``, linearly independent; ``G = E E^T``.

    Returns:
        ``[C, d]`` float32 on the device of the codes; its product with ``E^T`` is the identity.
    """
    inverse: Tensor = torch.linalg.pinv(codes.detach().cpu().double())
    return inverse.T.to(codes)


def decision_flips(codes: Tensor, draws: int = 20_000, seed: int = 0) -> float:
    """How often the nearest code to the expected code is not that of the likeliest class.

    A network trained by squared error predicts at best the posterior mean ``sum_c p_c e_c``, so
    the decision by similarity is ``argmax_c (G p)_c`` with the Gram matrix ``G``: right for every
    ``p`` only if all codes are equally far apart. Derived; measured here on posteriors drawn from
    a symmetric Dirichlet(1/2), our choice.

    Args:
        codes: ``[C, d]``, of equal norm.
        draws: number of posteriors.
        seed: of the draws; torch's global random numbers are not used.

    Returns:
        Share in 0..1.
    """
    g = torch.Generator().manual_seed(seed)
    # a Gamma(1/2) variable is half a squared normal one, and normalised Gammas are Dirichlet
    p = torch.randn(draws, len(codes), generator=g).square()
    p = p / p.sum(-1, keepdim=True)
    flipped = (p @ gram(codes).cpu()).argmax(-1) != p.argmax(-1)
    return flipped.float().mean().item()


def most_alike(codes: Tensor) -> tuple[int, int, float]:
    """The two classes whose codes have the largest cosine, and this cosine."""
    g = gram(codes).cpu().fill_diagonal_(-2.0)
    first, second = divmod(int(g.argmax()), len(g))
    return first, second, g[first, second].item()


def warn_of_alike(codes: Tensor, taxonomy: Taxonomy, spacing: float, *, stacklevel: int) -> None:
    """Warn, with numbers, where two codes are too alike for a decision by similarity."""
    first, second, cosine = most_alike(codes)
    if cosine <= ALIKE:
        return
    a, b = taxonomy.classes[first], taxonomy.classes[second]
    warnings.warn(
        f"codes of '{a}' and '{b}' have a cosine of {cosine:.2f} at spacing={spacing:g}; of random "
        f"posteriors over these {len(taxonomy)} classes {decision_flips(codes):.0%} are decided "
        "for a class that is not the likeliest; raise spacing (1000 gives neighbours about 0.16), "
        "or decide with decision=gram",
        stacklevel=stacklevel + 1,
    )


def explain_codes(codes: Tensor, taxonomy: Taxonomy) -> list[str]:
    """Lines for people: cosines of the codes, their condition, what they do to a decision."""
    first, second, cosine = most_alike(codes)
    names, width = taxonomy.classes, max(map(len, taxonomy.classes))
    rows = zip(names, gram(codes).tolist(), strict=True)
    return [
        "cosines of the codes, columns in the order of the rows:",
        *(f"  {name:{width}} " + " ".join(f"{x:5.2f}" for x in row) for name, row in rows),
        f"condition of this Gram matrix: {condition(codes):.3g}",
        f"most alike: {names[first]} and {names[second]}, {cosine:.2f}; of random posteriors "
        f"{decision_flips(codes):.1%} are decided for a class that is not the likeliest",
    ]


# ---- Codes of the classes that are learned first, and then stay.


class LearnedCodes(nn.Module):
    """Prototypes that learn for a number of training batches, and are the codes thereafter.

    While they learn, the cross-entropy of their cosines with ``x_1`` (over 0.2, as in the decision)
    is added to the loss, and their directions, without gradient, are the codes: both ends of the
    path move, and the cross-entropy keeps them from moving together. Then the codes stay as they
    are. Everything that decides when that is lies in buffers, so that a run resumes exactly. Our
    choice.

    Args:
        start: ``[C, d]`` codes to begin with.
        steps: training batches after which they stay.

    Attributes:
        prototypes: ``[C, d]``, of which only the directions matter.
        seen: training batches so far.
    """

    seen: Tensor

    def __init__(self, start: Tensor, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.prototypes = nn.Parameter(start.clone())
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def advance(self) -> Tensor | None:
        """Begin a training batch: ``[C, d]`` codes, or None once they stay as they are."""
        learning = bool(self.seen < self.steps)
        self.seen += 1
        if not learning:
            return None
        radius = math.sqrt(self.prototypes.shape[-1] / 2)
        return radius * nn.functional.normalize(self.prototypes.detach().float(), dim=-1)

    def widen(self, codes: Tensor) -> None:
        """Go on with ``codes [C', d]``, whose first are those of now; from here on they stay."""
        new = codes[len(self.prototypes) :].to(self.prototypes)
        self.prototypes = nn.Parameter(torch.cat([self.prototypes.detach(), new]))
        self.seen.clamp_(min=self.steps)

    def loss(self, x_1: Tensor, targets: Targets) -> Tensor:
        """Scalar to add to the loss for ``x_1 [B, d]``; afterwards zero, still reaching them."""
        cosine = similarity("cosine", x_1, self.prototypes)
        learning = (self.seen <= self.steps).to(cosine.dtype)
        return learning * targets.average(cross_entropy(cosine, targets.probs))


# ---- From a generated code to a score per class.

DecisionName = Literal["cosine", "gram", "nearest"]

TEMPERATURE = 0.2  # of the similarities; where calibration matters, a run fits its own on top


def similarity(decision: DecisionName, generated: Tensor, codes: Tensor) -> Tensor:
    """Scores of the classes, ``[B, C]`` float32.

    - ``cosine``: ``cos(x, e_c) / 0.2``. "Similarity" is the abstract's word (arXiv 2601.20573).
    - ``nearest``: ``-||x - e_c||^2 / (2 r^2) / 0.2`` with the norm r of the codes. All codes have
      it, so this ranks as cosine and dot product do, and where x has it too, it differs from the
      cosine by a constant: only the probabilities of short and long x differ.
    - ``gram``: ``p_c / 0.2`` with the shares ``p = G^-1 E x`` of the codes in x. A network trained
      by squared error gives ``sum_c p(c | x) e_c`` at best; this is its inverse, and decides for
      the likeliest class however alike the codes are. Errors of x grow with the condition of G.

    All scales are our choice; a run's fitted temperature is on top.

    Args:
        decision: one of the above.
        generated: ``x [B, d]``.
        codes: ``E [C, d]``; for ``gram`` what :func:`serzoo.heads.gen_ser.codes.dual` makes of it.
    """
    x, e = generated.float(), codes.float()
    if decision == "gram":
        # differences of large numbers where codes are alike: not in half precision
        with torch.autocast(x.device.type, enabled=False):
            return (x @ e.T) / TEMPERATURE
    if decision == "nearest":
        gaps = (x.unsqueeze(1) - e).square().sum(-1)
        return -gaps / (2 * e.square().sum(-1)) / TEMPERATURE
    cosine = nn.functional.normalize(x, dim=-1) @ nn.functional.normalize(e, dim=-1).T
    return cosine.float() / TEMPERATURE


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
