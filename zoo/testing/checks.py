"""The checks of the contract kit for heads: each is a promise of :class:`serzoo.zoo.Head`.

A failed check raises :class:`ContractError`. The message says what was found, what the contract
demands, and what to correct.
"""

from __future__ import annotations

import inspect
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ConfigError, ContractError, some
from ..core.head import Head
from ..core.taxonomy import Taxonomy
from ..core.types import Frames, HeadLoss, Targets

LENGTHS = (9, 1, 14, 6)  # frames; for a single one, a standard deviation has no gradient
TOLERANCE = 1e-4  # relative to the largest score, as rounding is


@dataclass(frozen=True)
class Case:
    """A head under test, and its inputs, which are small, random and repeatable.

    Attributes:
        cls: the head's class.
        dim: ``D``, width of the frames.
        taxonomy: the classes of training.
        knobs: further arguments of the constructor.
    """

    cls: type[Head]
    dim: int = 24
    taxonomy: Taxonomy = field(
        default_factory=lambda: Taxonomy.of(["angry", "happy", "neutral", "sad", "fearful"])
    )
    knobs: Mapping[str, Any] = field(default_factory=dict)

    def head(self, seed: int = 0) -> Head:
        """Return a new head in training mode; the caller's random state stays unchanged."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.cls(self.dim, self.taxonomy, **self.knobs).train()

    def frames(self, lengths: Sequence[int] = LENGTHS, seed: int = 1) -> Frames:
        """Return random frames; each utterance has its own mean, and zeros after its end."""
        g = torch.Generator().manual_seed(seed)
        mask = torch.arange(max(lengths)) < torch.tensor(list(lengths)).unsqueeze(1)
        own = torch.randn(len(lengths), 1, self.dim, generator=g)
        x = own + torch.randn(len(lengths), max(lengths), self.dim, generator=g)
        return Frames(x * mask.unsqueeze(-1), mask)

    def targets(self, n: int = len(LENGTHS), shift: int = 0) -> Targets:
        """Return one-hot labels of weight 1 that cycle through the classes, from ``shift`` on.

        So do genders and three speakers.
        """
        C, who = len(self.taxonomy), torch.arange(n)
        about = {"gender": torch.eye(2)[who % 2], "speaker": torch.eye(3)[who % 3]}
        return Targets(torch.eye(C)[(who + shift) % C], torch.ones(n), **about)

    def text(self, n: int) -> list[str] | None:
        """Return transcripts, some of them empty, or None for a head that does not read them."""
        known = ["kids are talking by the door", "", "dogs are sitting by the door", "no"]
        reads = self.cls.trains_on(self.knobs)
        return [known[i % 4] for i in range(n)] if "text" in reads else None

    def loss(self, head: Head, frames: Frames, targets: Targets, seed: int = 2) -> HeadLoss:
        """Return ``head.loss``, with the random numbers of a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return head.loss(frames, targets, self.text(len(targets.probs)))

    def scores(self, head: Head, frames: Frames, taxonomy: Taxonomy | None = None) -> Tensor:
        """Return ``head.scores`` in evaluation mode."""
        with torch.no_grad():
            text = self.text(len(frames.mask))
            return head.eval().scores(frames, taxonomy or self.taxonomy, text)

    def part(self, positions: Sequence[int]) -> Taxonomy:
        """Return the taxonomy of the classes at these positions, in this order."""
        return Taxonomy("part", tuple(self.taxonomy.members[i] for i in positions))


def demand(ok: bool, message: str) -> None:
    """Raise a :class:`ContractError` with the message if a condition is False."""
    if not ok:
        raise ContractError(message)


def demand_close(a: Tensor, b: Tensor, message: str, scale: Tensor | None = None) -> None:
    """Raise a :class:`ContractError`, with the difference, if two tensors are not equal enough.

    The tolerance is relative. Scores of a language model are around -50, and those of a new linear
    layer around 0.1.

    Args:
        a: a tensor.
        b: a tensor of the same shape.
        message: the message of the error.
        scale: the tolerance is relative to its largest number; by default that of both tensors.
            Give it if these are differences of larger numbers.
    """
    size = max(x.abs().max().item() for x in ((a, b) if scale is None else (scale,)))
    gap, allowed = (a - b).abs().max().item(), TOLERANCE * size
    demand(
        gap <= allowed < math.inf,
        f"{message} (largest difference {gap:.3g}, allowed {allowed:.3g}, which is {TOLERANCE:g} "
        f"of the largest number, {size:.3g})",
    )


def many(names: Sequence[str]) -> str:
    """Return the number of names, and the first five of them, as text."""
    return f"{len(names)} ({some(names)})"


def trainable(module: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the trainable parameters by name."""
    return {n: p for n, p in module.named_parameters() if p.requires_grad}


def demand_groups(module: torch.nn.Module, groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise a :class:`ContractError` if optimiser groups are not exactly the trainable parameters.

    Args:
        module: a head or an encoder.
        groups: the result of its ``param_groups``.
    """
    learns = trainable(module)
    listed = [id(p) for group in groups for p in group["params"]]
    lost = [n for n, p in learns.items() if id(p) not in listed]
    demand(not lost, f"param_groups lacks {many(lost)} trainable parameters; add them to a group")
    demand(
        len(listed) == len(set(listed)) == len(learns),
        "param_groups has a parameter twice, or a frozen one; list each trainable one once",
    )


NEW = ("jubilant", "wistful")  # classes that no checked head is trained on


def check_widen(case: Case) -> None:
    """Check that new classes follow the old ones and learn, or that a ConfigError refuses them."""
    wide = Taxonomy("wide", (*case.taxonomy.members, *((c, (c,)) for c in NEW)))
    head, frames = case.head(), case.frames()
    try:
        head.widen(wide)
    except ConfigError:
        demand(
            head.taxonomy == case.taxonomy,
            "widen refused the new classes, but changed head.taxonomy; change nothing before it "
            "refuses",
        )
        return
    demand(head.taxonomy == wide, "after widen, head.taxonomy must be the wider one")
    s, want = case.scores(head, frames, wide), (len(LENGTHS), len(wide))
    demand(s.shape == want, f"widened scores have shape {tuple(s.shape)}, not {want}")
    demand(bool(s.isfinite().all()), "widened scores hold NaN or infinite values; keep them finite")
    if not head.open_labels:  # an open head may compare the requested classes with each other
        old = case.scores(head, frames)
        demand_close(
            old,
            s[:, : len(case.taxonomy)],
            "the scores of the old classes changed, or are not the first columns; add new columns "
            "at the end",
        )
    last = Targets(torch.eye(len(wide))[-len(LENGTHS) :], torch.ones(len(LENGTHS)))
    case.loss(head.train(), frames, last).loss.backward()  # type: ignore[no-untyped-call]
    dead = [n for n, p in trainable(head).items() if p.grad is None]
    demand(
        not dead,
        f"the loss of a widened head does not reach {many(dead)} trainable parameters; use them in "
        "the loss",
    )
    other = case.head(seed=5)
    other.widen(wide)
    other.load_state_dict(head.state_dict())
    demand_close(
        case.scores(head, frames, wide),
        case.scores(other, frames, wide),
        "a widened head that is loaded from a state dict scores differently; keep all new values "
        "in parameters and buffers",
    )


VECTOR = 7  # numbers of an utterance beside its frames


def check_utterance(case: Case) -> None:
    """Check that vectors of utterances change scores and train, or that a ConfigError refuses them.

    An utterance's scores must not depend on the vectors of its batch neighbours.
    """
    head, frames, n = case.head(), case.frames(), len(LENGTHS)
    try:
        head.read_utterance(VECTOR)
    except ConfigError:
        demand(head.utterance == 0, "read_utterance refused, but changed head.utterance")
        return
    g = torch.Generator().manual_seed(7)
    vectors = torch.randn(n, VECTOR, generator=g)
    given = replace(frames, utterance=vectors)
    scores = case.scores(head, given)
    targets = case.targets()
    # The loss, because a head that writes may write the same. Its gradient, because rounding may
    # hide a small change.
    known = vectors.clone().requires_grad_()
    loss = case.loss(head, replace(frames, utterance=known), targets).loss
    found = torch.autograd.grad(loss, known, allow_unused=True)[0] if loss.requires_grad else None
    demand(
        found is not None and bool(found.any()),
        "the loss does not change with the vectors; use Frames.utterance, or leave add_utterance "
        "out",
    )
    one = vectors.clone()
    one[1:] = 3.0
    kept = case.scores(head, replace(frames, utterance=one))
    demand_close(
        scores[:1],
        kept[:1],
        "the vectors of other utterances change the scores of the first",
        scores,
    )
    case.loss(head.train(), given, targets).loss.backward()  # type: ignore[no-untyped-call]
    dead = [name for name, p in trainable(head).items() if p.grad is None]
    demand(not dead, f"with vectors, the loss does not reach {many(dead)} trainable parameters")
    again = case.head(seed=5)
    again.read_utterance(VECTOR)
    again.load_state_dict(head.state_dict())
    demand_close(
        case.scores(head, given),
        case.scores(again, given),
        "a head that reads vectors and is loaded from a state dict scores differently; keep all "
        "new values in parameters and buffers",
    )


UNKNOWN = "jubilant"  # a class that no checked head is trained on


def check_constructor(case: Case) -> None:
    """Check that all options are keyword-only and annotated, and have a default."""
    parameters = list(inspect.signature(case.cls).parameters.values())
    names = [p.name for p in parameters[:2]]
    demand(names == ["dim", "taxonomy"], f"constructor starts with {names}; give dim, taxonomy")
    for p in parameters[2:]:
        ok = p.kind is p.KEYWORD_ONLY and p.default is not p.empty and p.annotation is not p.empty
        demand(
            ok,
            f"option '{p.name}' must be keyword-only (after *), be annotated, and have a default",
        )
    knobs = {p.name for p in parameters[2:]}
    for name, step in case.cls.sizes.items():
        ok = name in knobs and isinstance(step, int) and step > 0
        demand(
            ok, f"sizes has '{name}: {step}'; give options of the constructor, and steps above 0"
        )
    demand(case.cls.needs <= {"text"}, f"needs={set(case.cls.needs)}; only 'text' is allowed")


def check_shape(case: Case) -> None:
    """Check that scores are finite float32 ``[B, C]``, and the loss a differentiable scalar."""
    head, frames = case.head(), case.frames()
    s, want = case.scores(head, frames), (len(LENGTHS), len(case.taxonomy))
    demand(s.shape == want, f"scores have shape {tuple(s.shape)}, not [B, C] = {want}")
    demand(s.dtype == torch.float32, f"scores are {s.dtype}; return scores.float()")
    demand(bool(s.isfinite().all()), "scores hold NaN or infinite values; keep them finite")
    loss = case.loss(head.train(), frames, case.targets()).loss
    demand(loss.ndim == 0, f"loss has shape {tuple(loss.shape)}; reduce with Targets.average")
    demand(loss.requires_grad, "loss has no gradient; do not detach it")
    demand(bool(loss.isfinite()), f"loss is {loss.item()} on ordinary frames; keep it finite")


def check_extras(case: Case) -> None:
    """Check that extras are detached scalars, because logging must not keep the graph alive."""
    for name, value in case.loss(case.head(), case.frames(), case.targets()).extras.items():
        ok = isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad
        demand(ok, f"extra '{name}' must be a detached scalar tensor; use value.mean().detach()")


def check_padding(case: Case) -> None:
    """Check that frames whose mask is False have no effect."""
    head, frames = case.head(), case.frames()
    mask = torch.nn.functional.pad(frames.mask, (0, 7))
    g = torch.Generator().manual_seed(3)
    rubbish = 100 * torch.randn(*mask.shape, case.dim, generator=g)
    x = torch.nn.functional.pad(frames.x, (0, 0, 0, 7))
    x = torch.where(mask.unsqueeze(-1), x, rubbish)
    demand_close(
        case.scores(head, frames),
        case.scores(head, Frames(x, mask)),
        "scores change with padding; use frames.mask in every sum, mean, maximum and attention",
    )


def check_batch(case: Case) -> None:
    """Check that the scores of an utterance do not depend on the others of its batch."""
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
            f"scores of an utterance of {n} frames differ alone and in a batch of mixed lengths; "
            "use frames.mask, and no statistics over the batch",
            scale=together,
        )


def check_repeat(case: Case) -> None:
    """Check that scores are deterministic in evaluation mode and draw no random numbers."""
    head, frames = case.head(), case.frames()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        before = torch.get_rng_state()
        first = case.scores(head, frames)
        untouched = torch.equal(before, torch.get_rng_state())
        torch.manual_seed(5)
        demand(
            torch.equal(first, case.scores(head, frames)),
            "scores differ from call to call, but must be deterministic in evaluation mode; draw "
            "noise in loss only, or once at construction into a buffer",
        )
    demand(
        untouched,
        "scores draw from torch's global random numbers, which changes training; use a generator",
    )


def check_taxonomy(case: Case) -> None:
    """Check that columns follow the requested taxonomy; a closed head refuses unknown classes."""
    head, frames, C = case.head(), case.frames(), len(case.taxonomy)
    full = case.scores(head, frames)
    order = [*range(1, C), 0]
    demand_close(
        case.scores(head, frames, case.part(order)),
        full[:, order],
        "permuting the taxonomy does not permute the columns; index with self.columns(taxonomy)",
    )
    few = [C - 1, 0]
    s = case.scores(head, frames, case.part(few))
    demand(
        s.shape == (len(LENGTHS), 2),
        f"scores for two classes have shape {tuple(s.shape)}; index with self.columns(taxonomy)",
    )
    other = Taxonomy.of([case.taxonomy.classes[0], UNKNOWN], name="other")
    if head.open_labels:
        s = case.scores(head, frames, other)
        ok = s.shape == (len(LENGTHS), 2) and bool(s.isfinite().all())
        demand(
            ok,
            f"the unknown class '{UNKNOWN}' has no finite score, but open_labels is set; score any "
            "class, or unset open_labels",
        )
        return
    demand_close(  # up to a constant, because a head may normalise over the requested classes
        s[:, 0] - s[:, 1],
        full[:, few[0]] - full[:, few[1]],
        "scores of two classes differ between a subset and the full taxonomy; index the columns of "
        "all classes",
        scale=full,
    )
    advice = "call self.columns(taxonomy), which refuses it by name, or set open_labels"
    try:
        case.scores(head, frames, other)
    except ConfigError as error:
        demand(UNKNOWN in str(error), f"the error on class '{UNKNOWN}' does not name it; {advice}")
    else:
        raise ContractError(f"a closed head scores the unknown class '{UNKNOWN}'; {advice}")


def check_unlabelled(case: Case) -> None:
    """Check that a batch without labels has loss 0, whose gradient reaches every parameter."""
    head = case.head()
    nothing = Targets(torch.zeros(len(LENGTHS), len(case.taxonomy)), torch.ones(len(LENGTHS)))
    loss = case.loss(head, case.frames(), nothing).loss
    demand(
        loss.item() == 0,
        f"loss of an unlabelled batch is {loss.item():.4g}; it must be exactly 0, as "
        "Targets.average makes it",
    )
    loss.backward()  # type: ignore[no-untyped-call]
    missing = [n for n, p in trainable(head).items() if p.grad is None]
    demand(
        not missing,
        f"an unlabelled batch leaves {many(missing)} parameters without gradient; multiply the "
        "loss by the weights (Targets.average) instead of returning early, or DDP hangs",
    )


def check_gradients(case: Case) -> None:
    """Check that every trainable parameter, and the frames, get a finite gradient."""
    head, frames = case.head(), case.frames()
    alive: set[str] = set()
    optimiser = torch.optim.Adam(head.param_groups(1e-3))
    for step in range(3):  # behind a gate that starts at zero, gradients come one step later
        x = frames.x.clone().requires_grad_()
        optimiser.zero_grad()
        loss = case.loss(head, Frames(x, frames.mask), case.targets(shift=step), seed=step).loss
        loss.backward()  # type: ignore[no-untyped-call]
        missing = [n for n, p in trainable(head).items() if p.grad is None]
        demand(
            not missing,
            f"the loss does not reach {many(missing)} trainable parameters; remove them, or "
            "freeze them with requires_grad_(False)",
        )
        grads = {n: p.grad for n, p in trainable(head).items() if p.grad is not None}
        grads["frames"] = x.grad if x.grad is not None else torch.zeros_like(x)
        broken = [n for n, g in grads.items() if not g.isfinite().all()]
        demand(
            not broken,
            f"the gradient of {many(broken)} is NaN or infinite, in a batch with an utterance of "
            "one frame; use sqrt(variance.clamp_min(eps)), not sqrt(variance)",
        )
        alive |= {n for n, g in grads.items() if g.any()}
        optimiser.step()
    dead = [n for n in [*trainable(head), "frames"] if n not in alive]
    demand(
        not dead,
        f"the gradient of {many(dead)} is zero in three steps, so they do not learn; use them in "
        "the loss, or freeze them",
    )


def check_weights(case: Case) -> None:
    """Check that utterances without label or with weight zero do not change the loss."""
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
            f"the {what} changes the loss from {one.item():.6g} to {two.item():.6g}; average with "
            "Targets.average, and share no statistics between utterances (no BatchNorm)",
        )


def check_soft_targets(case: Case) -> None:
    """Check that soft labels are used in full, and that unrated dimensions (NaN) do no harm."""
    head, n = case.head(), len(LENGTHS)
    g = torch.Generator().manual_seed(7)
    probs = torch.rand(n, len(case.taxonomy), generator=g).softmax(-1)
    soft = Targets(probs, torch.rand(n, generator=g), torch.full((n, 3), torch.nan))
    loss = case.loss(head, case.frames(), soft).loss
    demand(
        bool(loss.isfinite()),
        f"loss is {loss.item()} for soft labels and unrated dimensions; replace NaN before use",
    )
    hard = Targets(torch.eye(probs.shape[1])[probs.argmax(-1)], soft.weight)
    gap = (case.loss(case.head(), case.frames(), hard).loss - loss).abs()
    demand(
        bool(gap > 1e-6 * loss.abs()),
        "soft labels give the same loss as their likeliest class; use all of targets.probs",
    )


def check_state(case: Case) -> None:
    """Check that a head that is saved without frozen roots and loaded again scores the same."""
    head, other, frames = case.head(seed=0), case.head(seed=8), case.frames()
    frozen = tuple(f"{name}." for name in head.frozen_roots())
    buffer = io.BytesIO()
    torch.save({k: v for k, v in head.state_dict().items() if not k.startswith(frozen)}, buffer)
    buffer.seek(0)
    result = other.load_state_dict(torch.load(buffer, weights_only=True), strict=False)
    missing = [k for k in result.missing_keys if not k.startswith(frozen)]
    demand(
        not missing,
        f"a saved head lacks {many(missing)} keys; do not remove learned values from its state "
        "dict",
    )
    demand_close(
        case.scores(head, frames),
        case.scores(other, frames),
        "a head that is loaded from a state dict scores differently; keep learned and drawn values "
        "in parameters and buffers",
    )


def check_autocast(case: Case) -> None:
    """Check that under bf16 autocast loss and gradients are finite, and scores are float32."""
    head, frames = case.head(), case.frames().to(torch.bfloat16)
    frames = Frames(frames.x, frames.mask.bool())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = case.loss(head, frames, case.targets()).loss
    loss.backward()  # type: ignore[no-untyped-call]
    grads = [p.grad for p in trainable(head).values() if p.grad is not None]
    ok = bool(loss.isfinite()) and all(bool(g.isfinite().all()) for g in grads)
    demand(ok, "loss or gradients are not finite in bf16; keep pooling and softmax in float32")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        s = case.scores(head, frames)
    ok = s.dtype == torch.float32 and bool(s.isfinite().all())
    demand(ok, f"scores are {s.dtype} or not finite in bf16 autocast; return scores.float()")


def check_param_groups(case: Case) -> None:
    """Check that optimiser groups have every trainable parameter once, and frozen roots none."""
    head = case.head()
    demand_groups(head, head.param_groups(1e-3))
    modules = dict(head.named_modules())
    for name, root in head.frozen_roots().items():
        demand(
            modules.get(name) is root,
            f"frozen_roots has '{name}', but the head has another module of this name, or none; "
            "use the names of named_modules()",
        )
        free = [n for n, p in root.named_parameters() if p.requires_grad]
        demand(
            not free,
            f"frozen root '{name}' has {many(free)} trainable parameters; freeze them with "
            "requires_grad_(False)",
        )


def check_overfits(case: Case, *, steps: int = 400, lr: float = 2e-3) -> None:
    """Check that the head can learn 32 utterances with random labels by heart (slow)."""
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
        f"accuracy on 32 training utterances is {accuracy:.2f} after {steps} steps, but must reach "
        "0.95; check the loss, and the learning rates in param_groups"
    )
