"""The checks of the contract kit, one promise of :class:`serzoo.zoo.Head` each.

Each raises :class:`ContractError` with what was found, what is demanded and where to look.
"""

from __future__ import annotations

import inspect
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ConfigError, ContractError, some
from ..core.head import Head
from ..core.taxonomy import Taxonomy
from ..core.types import Frames, HeadLoss, Targets

# ---- A head under test and what it is tested with: small, random, of mixed lengths, repeatable.

LENGTHS = (9, 1, 14, 6)  # frames; the single one is where a standard deviation has no gradient
TOLERANCE = 1e-4  # relative to the largest score: rounding follows the largest terms of a sum


@dataclass(frozen=True)
class Case:
    """A head under test, and the inputs that it is tested with.

    Attributes:
        cls: the head's class.
        dim: ``D``, width of the frames.
        taxonomy: what the head is trained on.
        knobs: further arguments of the constructor.
    """

    cls: type[Head]
    dim: int = 24
    taxonomy: Taxonomy = field(
        default_factory=lambda: Taxonomy.of(["angry", "happy", "neutral", "sad", "fearful"])
    )
    knobs: Mapping[str, Any] = field(default_factory=dict)

    def head(self, seed: int = 0) -> Head:
        """A new head in training mode; the caller's random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.cls(self.dim, self.taxonomy, **self.knobs).train()

    def frames(self, lengths: Sequence[int] = LENGTHS, seed: int = 1) -> Frames:
        """Random frames: each utterance has its own mean, and zeros behind its end."""
        g = torch.Generator().manual_seed(seed)
        mask = torch.arange(max(lengths)) < torch.tensor(list(lengths)).unsqueeze(1)
        own = torch.randn(len(lengths), 1, self.dim, generator=g)
        x = own + torch.randn(len(lengths), max(lengths), self.dim, generator=g)
        return Frames(x * mask.unsqueeze(-1), mask)

    def targets(self, n: int = len(LENGTHS), shift: int = 0) -> Targets:
        """One-hot labels that go round the classes, all of weight 1."""
        C = len(self.taxonomy)
        return Targets(torch.eye(C)[(torch.arange(n) + shift) % C], torch.ones(n))

    def text(self, n: int) -> list[str] | None:
        """Transcripts, one of them empty, for a head that reads them."""
        known = ["kids are talking by the door", "", "dogs are sitting by the door", "no"]
        return [known[i % 4] for i in range(n)] if "text" in self.cls.needs else None

    def loss(self, head: Head, frames: Frames, targets: Targets, seed: int = 2) -> HeadLoss:
        """``head.loss`` with the random numbers of ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return head.loss(frames, targets, self.text(len(targets.probs)))

    def scores(self, head: Head, frames: Frames, taxonomy: Taxonomy | None = None) -> Tensor:
        """``head.scores`` in evaluation mode."""
        with torch.no_grad():
            text = self.text(len(frames.mask))
            return head.eval().scores(frames, taxonomy or self.taxonomy, text)

    def part(self, positions: Sequence[int]) -> Taxonomy:
        """The classes at these positions, in this order."""
        return Taxonomy("part", tuple(self.taxonomy.members[i] for i in positions))


def demand(ok: bool, message: str) -> None:
    """Raise :class:`ContractError` unless ``ok``."""
    if not ok:
        raise ContractError(message)


def demand_close(a: Tensor, b: Tensor, message: str, scale: Tensor | None = None) -> None:
    """Raise :class:`ContractError`, with the gap, unless two tensors agree to the tolerance.

    The tolerance is relative to the largest number of ``scale``, or else of both tensors: scores
    of a language model lie around -50, those of a new linear layer around 0.1. Give a ``scale`` if
    the tensors are differences of larger numbers.
    """
    size = max(x.abs().max().item() for x in ((a, b) if scale is None else (scale,)))
    gap, allowed = (a - b).abs().max().item(), TOLERANCE * size
    demand(
        gap <= allowed < math.inf,
        f"{message} (largest difference {gap:.3g}, allowed {allowed:.3g}, which is {TOLERANCE:g} "
        f"of the largest number, {size:.3g})",
    )


def many(names: Sequence[str]) -> str:
    """How many, and the first five by name."""
    return f"{len(names)} ({some(names)})"


def trainable(head: Head) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name."""
    return {n: p for n, p in head.named_parameters() if p.requires_grad}


# ---- The check of the contract kit for classes that are added to a trained head.

NEW = ("jubilant", "wistful")  # classes that no checked head is trained on


def check_widen(case: Case) -> None:
    """New classes stand behind the old ones and learn; or they are refused by a ConfigError."""
    wide = Taxonomy("wide", (*case.taxonomy.members, *((c, (c,)) for c in NEW)))
    head, frames = case.head(), case.frames()
    try:
        head.widen(wide)
    except ConfigError:
        demand(head.taxonomy == case.taxonomy, "widen refused, but changed the head's taxonomy")
        return
    demand(head.taxonomy == wide, "after widen, head.taxonomy must be the wider one")
    s, want = case.scores(head, frames, wide), (len(LENGTHS), len(wide))
    demand(s.shape == want, f"widened scores have shape {tuple(s.shape)}, not {want}")
    demand(bool(s.isfinite().all()), "widened scores hold NaN or infinite values")
    if not case.cls.open_labels:  # an open head may weigh what it is asked against each other
        old = case.scores(head, frames)
        demand_close(old, s[:, : len(case.taxonomy)], "the old classes are not the first columns")
    last = Targets(torch.eye(len(wide))[-len(LENGTHS) :], torch.ones(len(LENGTHS)))
    case.loss(head.train(), frames, last).loss.backward()  # type: ignore[no-untyped-call]
    dead = [n for n, p in trainable(head).items() if p.grad is None]
    demand(not dead, f"the loss of a widened head does not reach {many(dead)}")
    other = case.head(seed=5)
    other.widen(wide)
    other.load_state_dict(head.state_dict())
    demand_close(
        case.scores(head, frames, wide),
        case.scores(other, frames, wide),
        "a widened head's scores are not all in its state dict",
    )


UNKNOWN = "jubilant"  # a class that no checked head is trained on


def check_constructor(case: Case) -> None:
    """What a configuration may set is keyword-only, annotated and has a default."""
    parameters = list(inspect.signature(case.cls).parameters.values())
    names = [p.name for p in parameters[:2]]
    demand(names == ["dim", "taxonomy"], f"constructor starts with {names}, not dim, taxonomy")
    for p in parameters[2:]:
        ok = p.kind is p.KEYWORD_ONLY and p.default is not p.empty and p.annotation is not p.empty
        demand(ok, f"knob '{p.name}' must be keyword-only (after *), annotated and have a default")
    knobs = {p.name for p in parameters[2:]}
    for name, step in case.cls.sizes.items():
        ok = name in knobs and isinstance(step, int) and step > 0
        demand(ok, f"sizes names '{name}: {step}': give knobs of the constructor and steps above 0")
    demand(case.cls.needs <= {"text"}, f"needs={set(case.cls.needs)}; known are: text")


def check_shape(case: Case) -> None:
    """Scores are finite float32 of shape [B, C]; the loss is a differentiable scalar."""
    head, frames = case.head(), case.frames()
    s, want = case.scores(head, frames), (len(LENGTHS), len(case.taxonomy))
    demand(s.shape == want, f"scores have shape {tuple(s.shape)}, not [B, C] = {want}")
    demand(s.dtype == torch.float32, f"scores are {s.dtype}; return scores.float()")
    demand(bool(s.isfinite().all()), "scores hold NaN or infinite values")
    loss = case.loss(head.train(), frames, case.targets()).loss
    demand(loss.ndim == 0, f"loss has shape {tuple(loss.shape)}; reduce with Targets.average")
    demand(loss.requires_grad, "loss carries no gradient: was it detached?")
    demand(bool(loss.isfinite()), f"loss is {loss.item()} on ordinary frames")


def check_extras(case: Case) -> None:
    """Extras are detached scalars: they are logged, and must not keep the graph alive."""
    for name, value in case.loss(case.head(), case.frames(), case.targets()).extras.items():
        ok = isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad
        demand(ok, f"extra '{name}' must be a detached scalar tensor; use value.mean().detach()")


def check_padding(case: Case) -> None:
    """Frames where the mask is False change nothing, whatever they hold."""
    head, frames = case.head(), case.frames()
    mask = torch.nn.functional.pad(frames.mask, (0, 7))
    g = torch.Generator().manual_seed(3)
    rubbish = 100 * torch.randn(*mask.shape, case.dim, generator=g)
    x = torch.nn.functional.pad(frames.x, (0, 0, 0, 7))
    x = torch.where(mask.unsqueeze(-1), x, rubbish)
    demand_close(
        case.scores(head, frames),
        case.scores(head, Frames(x, mask)),
        "scores change with padding: use frames.mask in every sum, mean, maximum and attention",
    )


def check_batch(case: Case) -> None:
    """An utterance scores the same alone and among others."""
    head, frames = case.head(), case.frames()
    together = case.scores(head, frames)
    for i, n in enumerate(LENGTHS):
        alone = Frames(frames.x[i : i + 1, :n], frames.mask[i : i + 1, :n])
        text = case.text(len(LENGTHS))
        with torch.no_grad():
            row = head.scores(alone, case.taxonomy, None if text is None else [text[i]])
        demand_close(
            together[i],
            row[0],
            f"scores of an utterance of {n} frames differ alone and in a batch of mixed lengths",
            scale=together,
        )


def check_repeat(case: Case) -> None:
    """Scores are deterministic in evaluation mode and draw no random numbers."""
    head, frames = case.head(), case.frames()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        before = torch.get_rng_state()
        first = case.scores(head, frames)
        untouched = torch.equal(before, torch.get_rng_state())
        torch.manual_seed(5)
        demand(
            torch.equal(first, case.scores(head, frames)),
            "scores differ from call to call: they must be deterministic in evaluation mode; "
            "draw noise in loss only, or once at construction into a buffer",
        )
    demand(untouched, "scores draw from torch's global random numbers, which disturbs training")


def check_taxonomy(case: Case) -> None:
    """Columns follow the taxonomy asked for; unknown classes are refused by a closed head."""
    head, frames, C = case.head(), case.frames(), len(case.taxonomy)
    full = case.scores(head, frames)
    order = [*range(1, C), 0]
    demand_close(
        case.scores(head, frames, case.part(order)),
        full[:, order],
        "permuting the taxonomy does not permute the columns: index with self.columns(taxonomy)",
    )
    few = [C - 1, 0]
    s = case.scores(head, frames, case.part(few))
    demand(s.shape == (len(LENGTHS), 2), f"two classes asked, scores of shape {tuple(s.shape)}")
    other = Taxonomy.of([case.taxonomy.classes[0], UNKNOWN], name="other")
    if case.cls.open_labels:
        s = case.scores(head, frames, other)
        ok = s.shape == (len(LENGTHS), 2) and bool(s.isfinite().all())
        demand(ok, f"open_labels is set, but the unknown class '{UNKNOWN}' has no finite score")
        return
    demand_close(  # a head may normalise over what it is asked, hence up to a constant
        s[:, 0] - s[:, 1],
        full[:, few[0]] - full[:, few[1]],
        "a subset of the classes is scored differently from the full taxonomy",
        scale=full,
    )
    advice = "call self.columns(taxonomy), which refuses by name, or set open_labels"
    try:
        case.scores(head, frames, other)
    except ConfigError as error:
        demand(UNKNOWN in str(error), f"the refusal of '{UNKNOWN}' does not name it; {advice}")
    else:
        raise ContractError(f"a closed head scored the unknown class '{UNKNOWN}'; {advice}")


def check_unlabelled(case: Case) -> None:
    """A batch without labels has loss 0, and a backward pass that reaches every parameter."""
    head = case.head()
    nothing = Targets(torch.zeros(len(LENGTHS), len(case.taxonomy)), torch.ones(len(LENGTHS)))
    loss = case.loss(head, case.frames(), nothing).loss
    demand(loss.item() == 0, f"loss of an unlabelled batch is {loss.item():.4g}, not exactly 0")
    loss.backward()  # type: ignore[no-untyped-call]
    missing = [n for n, p in trainable(head).items() if p.grad is None]
    demand(
        not missing,
        f"an unlabelled batch leaves {many(missing)} parameters without gradient: multiply the "
        "loss by the weights (Targets.average) instead of leaving early; DDP hangs otherwise",
    )


def check_gradients(case: Case) -> None:
    """Every trainable parameter learns, and so do the frames."""
    head, frames = case.head(), case.frames()
    alive: set[str] = set()
    optimiser = torch.optim.Adam(head.param_groups(1e-3))
    for step in range(3):  # a gate that starts at zero wakes what lies behind it one step later
        x = frames.x.clone().requires_grad_()
        optimiser.zero_grad()
        loss = case.loss(head, Frames(x, frames.mask), case.targets(shift=step), seed=step).loss
        loss.backward()  # type: ignore[no-untyped-call]
        missing = [n for n, p in trainable(head).items() if p.grad is None]
        demand(
            not missing,
            f"the loss does not reach {many(missing)} trainable parameters: remove them, or "
            "freeze them with requires_grad_(False)",
        )
        grads = {n: p.grad for n, p in trainable(head).items() if p.grad is not None}
        grads["frames"] = x.grad if x.grad is not None else torch.zeros_like(x)
        broken = [n for n, g in grads.items() if not g.isfinite().all()]
        demand(
            not broken,
            f"gradient of {many(broken)} is NaN or infinite; one utterance has a single frame: "
            "take sqrt(variance.clamp_min(eps)), not sqrt(variance)",
        )
        alive |= {n for n, g in grads.items() if g.any()}
        optimiser.step()
    dead = [n for n in [*trainable(head), "frames"] if n not in alive]
    demand(not dead, f"gradient is zero in three steps for {many(dead)}: nothing is learnt there")


def check_weights(case: Case) -> None:
    """Utterances without label or of zero weight do not move the loss."""
    frames, other, targets = case.frames(), case.frames(seed=6), case.targets()
    out = torch.tensor([False, True, False, True])
    swapped = Frames(torch.where(out[:, None, None], 3 * other.x, frames.x), frames.mask)
    no_weight = Targets(targets.probs, (~out).float())
    relabelled = Targets(
        torch.where(out[:, None], case.targets(shift=2).probs, targets.probs), (~out).float()
    )
    no_label = Targets(targets.probs * (~out[:, None]), torch.ones(len(out)))
    for what, a, b, training in (
        ("frames of an utterance of zero weight", no_weight, no_weight, True),
        ("frames of an utterance without label", no_label, no_label, True),
        ("label of an utterance of zero weight", no_weight, relabelled, False),
    ):
        # a new head each, so that running statistics cannot differ between the two calls
        one = case.loss(case.head().train(training), frames, a).loss
        two = case.loss(case.head().train(training), swapped, b).loss
        demand(
            torch.allclose(one, two, rtol=1e-5, atol=0),  # the same shapes: the same kernels
            f"the {what} moves the loss from {one.item():.6g} to {two.item():.6g}: average with "
            "Targets.average, and share no statistics between utterances (no BatchNorm)",
        )


def check_soft_targets(case: Case) -> None:
    """An annotators' distribution is a label; unrated dimensions are NaN and do no harm."""
    head, n = case.head(), len(LENGTHS)
    g = torch.Generator().manual_seed(7)
    probs = torch.rand(n, len(case.taxonomy), generator=g).softmax(-1)
    soft = Targets(probs, torch.rand(n, generator=g), torch.full((n, 3), torch.nan))
    loss = case.loss(head, case.frames(), soft).loss
    demand(bool(loss.isfinite()), f"loss is {loss.item()} for soft labels and unrated dimensions")
    hard = Targets(torch.eye(probs.shape[1])[probs.argmax(-1)], soft.weight)
    gap = (case.loss(case.head(), case.frames(), hard).loss - loss).abs()
    demand(
        bool(gap > 1e-6 * loss.abs()),
        "soft labels give the same loss as their largest class: use all of probs",
    )


def check_state(case: Case) -> None:
    """Saved without frozen roots and loaded into a new head, it scores the same."""
    head, other, frames = case.head(seed=0), case.head(seed=8), case.frames()
    frozen = tuple(f"{name}." for name in head.frozen_roots())
    buffer = io.BytesIO()
    torch.save({k: v for k, v in head.state_dict().items() if not k.startswith(frozen)}, buffer)
    buffer.seek(0)
    result = other.load_state_dict(torch.load(buffer, weights_only=True), strict=False)
    missing = [k for k in result.missing_keys if not k.startswith(frozen)]
    demand(not missing, f"a saved head lacks {many(missing)} keys")
    demand_close(
        case.scores(head, frames),
        case.scores(other, frames),
        "a head loaded from a state dict scores differently: keep what it learns or draws in "
        "parameters and buffers",
    )


def check_autocast(case: Case) -> None:
    """In bf16 autocast the loss and its gradients are finite and scores are float32."""
    head, frames = case.head(), case.frames().to(torch.bfloat16)
    frames = Frames(frames.x, frames.mask.bool())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = case.loss(head, frames, case.targets()).loss
    loss.backward()  # type: ignore[no-untyped-call]
    grads = [p.grad for p in trainable(head).values() if p.grad is not None]
    ok = bool(loss.isfinite()) and all(bool(g.isfinite().all()) for g in grads)
    demand(ok, "loss or gradients are not finite in bf16: keep pooling and softmax in float32")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        s = case.scores(head, frames)
    ok = s.dtype == torch.float32 and bool(s.isfinite().all())
    demand(ok, f"scores are {s.dtype} or not finite in bf16 autocast; return scores.float()")


def check_param_groups(case: Case) -> None:
    """Optimiser groups hold every trainable parameter once; frozen roots hold none."""
    head = case.head()
    listed = [id(p) for group in head.param_groups(1e-3) for p in group["params"]]
    want = {id(p): n for n, p in trainable(head).items()}
    lost = [n for i, n in want.items() if i not in listed]
    demand(not lost, f"param_groups leave out {many(lost)} trainable parameters")
    demand(
        len(listed) == len(set(listed)) and set(listed) == set(want),
        "param_groups list a parameter twice, or one that is frozen",
    )
    modules = dict(head.named_modules())
    for name, root in head.frozen_roots().items():
        demand(modules.get(name) is root, f"frozen root '{name}' is no module of that name")
        free = [n for n, p in root.named_parameters() if p.requires_grad]
        demand(not free, f"frozen root '{name}' has {many(free)} trainable parameters")


def check_overfits(case: Case, *, steps: int = 400, lr: float = 2e-3) -> None:
    """Slow: 32 utterances with labels of no meaning are learnt by heart."""
    head = case.head()
    frames = case.frames([4 + i % 9 for i in range(32)], seed=9)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(10))
    probs = case.targets(32).probs[order]
    optimiser = torch.optim.Adam(head.param_groups(lr))
    accuracy = 0.0
    for step in range(steps):
        optimiser.zero_grad()
        loss = case.loss(head.train(), frames, Targets(probs, torch.ones(32)), seed=step).loss
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % 20 == 19:
            accuracy = (
                (case.scores(head, frames).argmax(1) == probs.argmax(1)).float().mean().item()
            )
            if accuracy >= 0.95:
                return
    raise ContractError(
        f"accuracy on 32 training utterances is {accuracy:.2f} after {steps} steps; it shall learn "
        "them by heart: look at the loss, and at the rates in param_groups"
    )
