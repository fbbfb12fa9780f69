"""Codes of the classes, the vectors to which Gen-SER transports an utterance.

The first part builds codes (:func:`build_codes`) and measures how similar they are.
:class:`LearnedCodes` are codes that are learned first and then fixed. :func:`similarity` turns a
generated code into scores of the classes. :func:`wider_codes` adds codes for new classes.

"Sinusoidal taxonomy encoding" is from the abstract of Gen-SER (arXiv 2601.20573). Positions,
spacing and base are our choice. So are the other kinds of codes, which are ablations. Codes of the
kind ``text`` are embeddings of the class names. Every code of every kind has the norm
``sqrt(d / 2)``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ...zoo.core.errors import ConfigError, suggest
from ...zoo.core.hub import Published
from ...zoo.core.sentences import EXAMPLE, embed_texts, load_sentences
from ...zoo.core.taxonomy import Taxonomy
from ...zoo.core.types import Targets
from ..losses import cross_entropy

CodeName = Literal["sinusoidal", "one_hot", "orthogonal", "learned", "text"]
Order = list[str] | list[float] | int | None

ALIKE = 0.5  # from this cosine of two codes on, the decision gets worse


def sinusoidal_codes(
    n_classes: int,
    dim: int,
    spacing: float = 1000.0,
    base: float = 10000.0,
    order: Sequence[float] | None = None,
) -> Tensor:
    """Return codes of the classes: sinusoidal position encodings that are far enough apart.

    ``PE(p)[2i] = sin(p w_i)``, ``PE(p)[2i + 1] = cos(p w_i)``, ``w_i = base^(-2i / dim)`` at the
    position ``p_c = spacing * order[c]``. Every code has the norm ``sqrt(dim / 2)``. The name
    "sinusoidal taxonomy encoding" is from the abstract (arXiv 2601.20573), the formula from
    Vaswani et al. (2017). Positions and spacing are our choice. At spacing 1 neighbours have a
    cosine of 0.97. The head then almost never decides for the classes at the ends of the list
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
        ValueError: if the width is odd, or the order has another length than the classes.
    """
    if dim % 2 or dim < 2:
        raise ValueError(
            f"dim={dim}; a sinusoidal code pairs sine and cosine: give an even number, at least 2"
        )
    places = list(range(n_classes)) if order is None else list(order)
    if len(places) != n_classes:
        raise ValueError(
            f"order has {len(places)} positions for {n_classes} classes; give one per class"
        )
    # float64: at position 7000 the fourth digit of a float32 angle is already wrong
    omega = base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angle = spacing * torch.tensor(places, dtype=torch.float64).unsqueeze(1) * omega
    codes: Tensor = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()
    return codes


def orthogonal_codes(n_classes: int, dim: int, seed: int = 0) -> Tensor:
    """Return ``[C, dim]`` random directions at right angles, of norm ``sqrt(dim / 2)``.

    They do not depend on the seed of a run, because codes are part of the method. ``seed`` sets
    their own random numbers.
    """
    g = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(dim, n_classes, generator=g, dtype=torch.float64))
    codes: Tensor = math.sqrt(dim / 2) * q.T
    return codes.float().contiguous()


def text_codes(
    forms: Sequence[str],
    trained: Sequence[str],
    dim: int,
    model: str | None,
    revision: str | None = None,
) -> Tensor:
    """Return ``[C, dim]`` float32 embeddings of the classes' names, of norm ``sqrt(dim / 2)``.

    The mean over the trained names is subtracted first. Otherwise names of emotions are so much
    alike that a decision by similarity gets worse. Zeros follow the numbers of an embedding if the
    codes are wider. All of this is our choice.

    Args:
        forms: verbal forms of the C classes.
        trained: verbal forms of the trained classes, at least two.
        dim: width of the codes.
        model: a model of sentence-transformers: hub id or folder.
        revision: commit, tag or branch of a hub id.

    Raises:
        ConfigError: if there is no such model, the codes are narrower than its embeddings, or two
            classes have the same embedding.
    """
    if not model:
        raise ConfigError(
            f"codes=text needs a model that embeds names; set head.text_model={EXAMPLE} (read from "
            "the hub, or from a folder of SERZOO_MODELS), or codes=sinusoidal"
        )
    published = Published.find("head.text_model", model, revision, example=EXAMPLE)
    loaded = load_sentences(published, instead="head.codes=sinusoidal").model
    mean = embed_texts(loaded, list(trained)).mean(0)
    found = torch.from_numpy(embed_texts(loaded, list(forms)) - mean)
    width = found.shape[1]
    if width > dim:
        raise ConfigError(
            f"code_dim={dim} is narrower than the {width} numbers of an embedding by {model}; set "
            f"head.code_dim={width + width % 2}, or more"
        )
    if (found.norm(dim=1) < 1e-6).any() or (torch.pdist(found) < 1e-6).any():
        raise ConfigError(
            f"{model} cannot tell the names {', '.join(forms)} apart; give other names, or "
            "codes=sinusoidal"
        )
    unit = nn.functional.normalize(found, dim=1)
    return nn.functional.pad(math.sqrt(dim / 2) * unit, (0, dim - width)).float()


def positions(taxonomy: Taxonomy, order: Order) -> list[float]:
    """Return the position of each class, in units of the spacing.

    Args:
        taxonomy: the classes.
        order: None: the order of the taxonomy. Class names: the first is at position 0, and so
            on. Numbers: one position per class of the taxonomy. An integer: the seed of a random
            permutation; this works for any taxonomy.

    Raises:
        ConfigError: if names or numbers do not fit the taxonomy.
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
            f"classes; give each of {', '.join(names)} its own position"
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
    text_model: str | None = None,
    text_revision: str | None = None,
) -> Tensor:
    """Return the ``[C, d]`` float32 codes of a configuration; learned ones start orthogonal.

    Raises:
        ConfigError: if these values cannot give codes.
    """
    if code_dim < 2 or code_dim % 2 or spacing <= 0 or base <= 1:
        raise ConfigError(
            f"code_dim={code_dim}, spacing={spacing}, base={base}; give an even code_dim of at "
            "least 2 (a code pairs sine and cosine), spacing above 0 and base above 1"
        )
    n = len(taxonomy)
    if codes == "sinusoidal":
        return sinusoidal_codes(n, code_dim, spacing, base, positions(taxonomy, order))
    if order is not None:
        raise ConfigError(
            f"order={order} with codes={codes}: only sinusoidal codes have an order; set "
            "order=null, or codes=sinusoidal"
        )
    if codes == "text":
        return text_codes(taxonomy.forms, taxonomy.forms, code_dim, text_model, text_revision)
    if code_dim < n:
        raise ConfigError(
            f"code_dim={code_dim} is too small for {n} codes at right angles (codes={codes}); "
            f"set code_dim to at least {n + n % 2}"
        )
    if codes == "one_hot":
        return math.sqrt(code_dim / 2) * torch.eye(n, code_dim)
    return orthogonal_codes(n, code_dim)


def gram(codes: Tensor) -> Tensor:
    """Return the ``[C, C]`` cosines between the codes ``[C, d]``."""
    unit = torch.nn.functional.normalize(codes.double(), dim=-1)
    return (unit @ unit.T).float()


def condition(codes: Tensor) -> float:
    """Return the condition number of the Gram matrix: 1 for orthogonal codes, infinite for equal.

    It is the squared ratio of the largest to the smallest singular value of the unit codes, in
    float64. If a decision uses the inverse, an error of the generated code may grow by this factor.
    """
    unit = torch.nn.functional.normalize(codes.double(), dim=-1)
    values = torch.linalg.svdvals(unit)
    smallest = values[-1].item() if len(unit) <= unit.shape[1] else 0.0
    return (values[0].item() / smallest) ** 2 if smallest > 0 else math.inf


def dual(codes: Tensor) -> Tensor:
    """Return ``G^-1 E``, which reads the shares ``p`` from a mixture ``sum_c p_c e_c``.

    Args:
        codes: ``E [C, d]``, linearly independent; ``G = E E^T``.

    Returns:
        ``[C, d]`` float32 on the device of the codes; its product with ``E^T`` is the identity.
    """
    inverse: Tensor = torch.linalg.pinv(codes.detach().cpu().double())
    return inverse.T.to(codes)


def decision_flips(codes: Tensor, draws: int = 20_000, seed: int = 0) -> float:
    """Return how often the code nearest to the expected code is not that of the likeliest class.

    A network trained by squared error predicts at best the posterior mean ``sum_c p_c e_c``. The
    decision by similarity is then ``argmax_c (G p)_c`` with the Gram matrix ``G``. It is right for
    every ``p`` only if all codes are equally far apart (derived). This function measures it on
    posteriors drawn from a symmetric Dirichlet(1/2), our choice.

    Args:
        codes: ``[C, d]``, of equal norm.
        draws: number of posteriors.
        seed: seed of the draws; torch's global random numbers are not used.

    Returns:
        Share in 0..1.
    """
    g = torch.Generator().manual_seed(seed)
    # half a squared normal variable is Gamma(1/2), and normalised Gammas are Dirichlet
    p = torch.randn(draws, len(codes), generator=g).square()
    p = p / p.sum(-1, keepdim=True)
    flipped = (p @ gram(codes).cpu()).argmax(-1) != p.argmax(-1)
    return flipped.float().mean().item()


def most_alike(codes: Tensor) -> tuple[int, int, float]:
    """Return the two classes whose codes have the largest cosine, and this cosine."""
    g = gram(codes).cpu().fill_diagonal_(-2.0)
    first, second = divmod(int(g.argmax()), len(g))
    return first, second, g[first, second].item()


def warn_of_alike(codes: Tensor, taxonomy: Taxonomy, spacing: float, *, stacklevel: int) -> None:
    """Warn, with numbers, if two codes are too similar for a decision by similarity."""
    first, second, cosine = most_alike(codes)
    if cosine <= ALIKE:
        return
    a, b = taxonomy.classes[first], taxonomy.classes[second]
    warnings.warn(
        f"codes of '{a}' and '{b}' have a cosine of {cosine:.2f} at spacing={spacing:g}; "
        f"{decision_flips(codes):.0%} of random posteriors over these {len(taxonomy)} classes lead "
        "to a class that is not the likeliest. Raise spacing (at 1000 neighbours have about 0.16), "
        "or set decision=gram",
        stacklevel=stacklevel + 1,
    )


def explain_codes(codes: Tensor, taxonomy: Taxonomy) -> list[str]:
    """Return lines for people: the cosines of the codes, their condition, and the effect."""
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


class LearnedCodes(nn.Module):
    """Prototypes that are learned for a number of training batches and then are fixed codes.

    While they learn, the loss includes the cross-entropy of their cosines with ``x_1`` (divided
    by 0.2, as in the decision). Their directions, without gradient, are the codes. So both ends
    of the path move, and the cross-entropy prevents a collapse into each other. Afterwards the
    codes are fixed. The buffers hold the number of batches, so a run resumes exactly. Our choice.

    Args:
        start: ``[C, d]`` codes to begin with.
        steps: number of training batches in which they learn.

    Attributes:
        prototypes: ``[C, d]``; only their directions matter.
        seen: training batches so far.
    """

    seen: Tensor

    def __init__(self, start: Tensor, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.prototypes = nn.Parameter(start.clone())
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def advance(self) -> Tensor | None:
        """Begin a training batch; return the ``[C, d]`` codes, or None if they are fixed."""
        learning = bool(self.seen < self.steps)
        self.seen += 1
        if not learning:
            return None
        radius = math.sqrt(self.prototypes.shape[-1] / 2)
        return radius * nn.functional.normalize(self.prototypes.detach().float(), dim=-1)

    def widen(self, codes: Tensor) -> None:
        """Take over ``codes [C', d]``, which begin with the current ones, and fix them."""
        new = codes[len(self.prototypes) :].to(self.prototypes)
        self.prototypes = nn.Parameter(torch.cat([self.prototypes.detach(), new]))
        self.seen.clamp_(min=self.steps)

    def loss(self, x_1: Tensor, targets: Targets) -> Tensor:
        """Return the scalar to add to the loss for ``x_1 [B, d]``.

        Once the codes are fixed it is 0, but still differentiable.
        """
        cosine = similarity("cosine", x_1, self.prototypes)
        learning = (self.seen <= self.steps).to(cosine.dtype)
        return learning * targets.average(cross_entropy(cosine, targets.probs))


# Decision: from a generated code to a score per class.

DecisionName = Literal["cosine", "gram", "nearest"]

TEMPERATURE = 0.2  # divides the similarities; for calibration, a run fits a second one on top


def similarity(decision: DecisionName, generated: Tensor, codes: Tensor) -> Tensor:
    """Return the scores of the classes, ``[B, C]`` float32.

    - ``cosine``: ``cos(x, e_c) / 0.2``. "Similarity" is the abstract's word (arXiv 2601.20573).
    - ``nearest``: ``-||x - e_c||^2 / (2 r^2) / 0.2`` with the norm r, which all codes have. It
      ranks the classes as cosine and dot product do. Only the probabilities differ, if the norm
      of x is not r.
    - ``gram``: ``p_c / 0.2`` with the shares ``p = G^-1 E x`` of the codes in x. A network trained
      by squared error gives ``sum_c p(c | x) e_c`` at best. This inverts it, and decides for the
      likeliest class even if codes are similar. Errors of x grow with the condition of G.

    All scales are our choice. A run may fit a temperature on top.

    Args:
        decision: one of the above.
        generated: ``x [B, d]``.
        codes: ``E [C, d]``; for ``gram`` the result of :func:`serzoo.heads.gen_ser.codes.dual`.
    """
    x, e = generated.float(), codes.float()
    if decision == "gram":
        # similar codes give small differences of large numbers: not in half precision
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
    forms: Sequence[str] = (),
    text_model: str | None = None,
    text_revision: str | None = None,
) -> Tensor:
    """Extend ``[C, d]`` codes to ``[n, d]``; the old codes stay exactly the same.

    New sinusoidal codes are at the positions after the last one. New one-hot codes are the next
    unit vectors. New orthogonal and learned codes are at right angles to all old codes and to
    each other. New text codes are embeddings of the new names. All have the norm ``sqrt(d / 2)``.

    Args:
        old: the codes of the trained classes.
        trained: these classes.
        n: number of classes after this call.
        codes: the kind of the old codes; this and the rest as for :func:`.codes.build_codes`.
        spacing: spacing of sinusoidal positions.
        base: base of sinusoidal wavelengths.
        order: order of the old classes along the positions.
        forms: verbal forms of all classes, for text codes.
        text_model: the model of text codes.
        text_revision: its commit, tag or branch.

    Raises:
        ConfigError: if the codes are too narrow for so many directions.
    """
    C, d = old.shape
    if codes == "sinusoidal":
        last = max(positions(trained, order))
        new = sinusoidal_codes(n - C, d, spacing, base, [last + 1 + i for i in range(n - C)])
    elif codes == "text":
        new = text_codes(forms[C:], trained.forms, d, text_model, text_revision)
    elif d < n:
        raise ConfigError(
            f"codes of width {d} are too narrow for {n} classes at right angles (codes={codes}); "
            f"train with head.code_dim={n + n % 2} or more, or give a taxonomy of fewer new classes"
        )
    elif codes == "one_hot":
        new = (d / 2) ** 0.5 * torch.eye(n, d)[C:]
    else:
        drawn = orthogonal_codes(n - C, d, seed=C).double()
        both = torch.cat([old.detach().cpu().double(), drawn]).T
        new = ((d / 2) ** 0.5 * torch.linalg.qr(both).Q.T[C:]).float()
    return torch.cat([old, new.to(old)])
