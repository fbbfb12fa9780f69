"""The checks of the contract kit for encoders, one promise of :class:`serzoo.zoo.Encoder` each.

Each raises ``ContractError`` with what was found, what is demanded, where to look.
"""

from __future__ import annotations

import inspect
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.encoder import Encoder
from ..core.types import SAMPLE_RATE, Frames
from .checks import demand, demand_close, many

LENGTHS = (3000, 1, 400, 399)
"""Samples: a single one; one below, and exactly, a frame of most published models."""

FACTOR = 3.0
"""By how much an estimate may be off: silence is cut, and a store may halve the number format."""


@dataclass(frozen=True)
class EncoderCase:
    """An encoder under test, and the audio that it is tested with.

    Attributes:
        make: gives a new encoder, each time the same but for random weights.
    """

    make: Callable[[], Encoder]

    def encoder(self, seed: int = 0) -> Encoder:
        """A new encoder in evaluation mode; the caller's random state is left alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make().eval()

    def audio(
        self, lengths: Sequence[int] = LENGTHS, *, more: int = 0, seed: int = 1
    ) -> tuple[Tensor, Tensor]:
        """``[B, S]`` noise of another level for each utterance, zeros behind its end; ``[B]``.

        Args:
            lengths: samples of each utterance.
            more: further zeros behind the longest.
            seed: of the noise.
        """
        g = torch.Generator().manual_seed(seed)
        audio = torch.zeros(len(lengths), max(lengths) + more)
        for i, n in enumerate(lengths):
            audio[i, :n] = 0.05 * (i + 1) * torch.randn(n, generator=g) + 0.01
        return audio, torch.tensor(list(lengths))

    def frames(self, encoder: Encoder, audio: Tensor, lengths: Tensor) -> Frames:
        """What heads see, without a gradient."""
        with torch.no_grad():
            found: Frames = encoder(*encoder.extract(audio, lengths))
            return found


def check_constructor(case: EncoderCase) -> None:
    """What a configuration may set is keyword-only and annotated."""
    for p in inspect.signature(type(case.encoder())).parameters.values():
        ok = p.kind is p.KEYWORD_ONLY and p.annotation is not p.empty
        demand(ok, f"option '{p.name}' must be keyword-only (after *) and annotated")


def check_shape(case: EncoderCase) -> None:
    """``hidden [B, K, T, D0]``, ``mask [B, T]``, frames ``[B, T', dim]``, all finite."""
    encoder, n = case.encoder(), len(LENGTHS)
    with torch.no_grad():
        hidden, mask = encoder.extract(*case.audio())
        frames = encoder(hidden, mask)
    demand(
        hidden.dim() == 4 and hidden.is_floating_point() and len(hidden) == n,
        f"hidden is {hidden.dtype} {tuple(hidden.shape)}, not floating [{n}, K, T, D0]",
    )
    want = (n, hidden.shape[2])
    demand(mask.shape == want, f"the mask of hidden is {tuple(mask.shape)}, not {want}")
    x, told = frames.x, (n, frames.mask.shape[-1], encoder.dim)
    demand(
        x.shape == told and frames.mask.shape == told[:2],
        f"frames are {tuple(x.shape)} with a mask {tuple(frames.mask.shape)}; dim says {told}",
    )
    ok = bool(hidden.isfinite().all()) and bool(x.isfinite().all())
    demand(ok, "hidden or frames hold NaN or infinite values")


def check_mask(case: EncoderCase) -> None:
    """A mask is True from the first frame to the utterance's last; there is zero behind it."""
    encoder = case.encoder()
    audio, lengths = case.audio()
    with torch.no_grad():
        hidden, mask = encoder.extract(audio, lengths)
        frames = encoder(hidden, mask)
        alone = [encoder.extract(audio[i : i + 1, :k], lengths[i : i + 1]) for i, k in _rows()]
        single = [encoder(*found).mask.sum().item() for found in alone]
    for what, m in (("hidden", mask), ("frames", frames.mask)):
        demand(m.dtype == torch.bool, f"the mask of {what} is {m.dtype}, not bool")
        demand(bool(m.any(1).all()), f"the mask of {what} has a row without True")
        gaps = bool((m[:, 1:] & ~m[:, :-1]).any())
        demand(not gaps, f"the mask of {what} is not True from the first frame to the last")
    silent = not hidden.masked_fill(mask[:, None, :, None], 0.0).any()
    demand(silent, "hidden is not zero where its mask is False: multiply by the mask")
    counts = [found[1].sum().item() for found in alone]
    demand(
        mask.sum(1).tolist() == counts,
        f"{mask.sum(1).tolist()} frames are True in a batch, {counts} alone: the mask must follow "
        "lengths, and not the shape of the audio",
    )
    got = frames.mask.sum(1).tolist()
    demand(got == single, f"forward leaves {got} frames True in a batch, {single} alone")


def check_alone(case: EncoderCase) -> None:
    """An utterance alone has the same hidden states and frames as in a batch."""
    encoder = case.encoder()
    audio, lengths = case.audio()
    with torch.no_grad():
        hidden, mask = encoder.extract(audio, lengths)
    together = case.frames(encoder, audio, lengths)
    for i, n in _rows():
        with torch.no_grad():
            own, own_mask = encoder.extract(audio[i : i + 1, :n], lengths[i : i + 1])
            single = encoder(own, own_mask)
        for what, a, b in (
            ("hidden states", _real(hidden, mask, i), _real(own, own_mask, 0)),
            ("frames", _of(together, i), _of(single, 0)),
        ):
            k = min(a.shape[-2], b.shape[-2])
            demand_close(
                a[..., :k, :],
                b[..., :k, :],
                f"the {what} of {n} samples differ between alone and a batch: take no statistics "
                "over the batch, or over padding",
            )


def check_padding(case: EncoderCase) -> None:
    """More zeros behind the longest utterance change nothing."""
    encoder = case.encoder()
    plain = case.frames(encoder, *case.audio())
    longer = case.frames(encoder, *case.audio(more=1700))
    for i, n in _rows():
        a, b = _of(plain, i), _of(longer, i)
        k = min(len(a), len(b))
        demand_close(a[:k], b[:k], f"1700 zeros behind the batch change the frames of {n} samples")


def check_lengths(case: EncoderCase) -> None:
    """Longer speech has more frames, which say something; ``frame_seconds`` is their distance."""
    encoder = case.encoder()
    seconds = 4
    with torch.no_grad():
        audio, lengths = case.audio([seconds * SAMPLE_RATE, seconds * SAMPLE_RATE // 2])
        _, mask = encoder.extract(audio, lengths)
    long, short = mask.sum(1).tolist()
    demand(long > short, f"{seconds} s have {long} frames, half of it {short}")
    expected = seconds / encoder.frame_seconds
    demand(
        expected / FACTOR <= long <= expected * FACTOR,
        f"{seconds} s have {long} frames of hidden, but frame_seconds={encoder.frame_seconds:g} "
        f"tells of {expected:.0f}; batches are packed by it",
    )
    x = case.frames(encoder, audio, lengths)
    gap = (x.x[0, 0] - x.x[1, 0]).abs().max()
    demand(bool(gap > 0), "two utterances have the same frames: nothing is encoded")


def check_repeat(case: EncoderCase) -> None:
    """``extract`` gives the same again, in training mode too if it is stored; nothing is drawn."""
    encoder = case.encoder()
    modes = (False, True) if encoder.storable else (False,)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(4)
        before = torch.get_rng_state()
        first = encoder.extract(*case.audio())[0]
        for training in modes:
            again = encoder.train(training).extract(*case.audio())[0]
            mode = "in training mode " if training else ""
            demand(
                torch.equal(first, again),
                f"extract gives something else {mode}from call to call; it is stored: draw noise "
                "in forward, in training only",
            )
        untouched = torch.equal(before, torch.get_rng_state())
        demand(untouched, "extract draws from torch's global random numbers")
        encoder.eval()
        a = case.frames(encoder, *case.audio()).x
        torch.manual_seed(5)
        same = torch.equal(a, case.frames(encoder, *case.audio()).x)
    demand(same, "forward differs from call to call in evaluation mode: augment in training only")


def check_extraction(case: EncoderCase) -> None:
    """If frames can be stored, ``extraction()`` is plain JSON, and the same for the same."""
    encoder = case.encoder()
    if not encoder.storable:
        return
    try:
        about = encoder.extraction()
    except TypeError as error:
        demand(False, f"storable is True, but extraction() is missing: {error}")
        return
    try:
        plain = json.loads(json.dumps(about, allow_nan=False))
    except (TypeError, ValueError) as error:
        plain = error
    demand(
        isinstance(about, dict) and bool(about) and plain == about,
        f"extraction() is no plain JSON ({plain}); give text, numbers, lists and dicts",
    )
    demand(about == case.encoder().extraction(), "extraction() differs for the same encoder")
    if any(p.requires_grad for p in encoder.parameters()):
        hidden = encoder.train().extract(*case.audio())[0]
        demand(
            not hidden.requires_grad,
            "storable is True, but extract depends on weights that learn: what is stored would be "
            "old; set storable = False, or freeze them",
        )


def check_bytes(case: EncoderCase) -> None:
    """``bytes_per_second`` is the size of what is stored, within a factor; or 0."""
    encoder, seconds = case.encoder(), 4
    told = encoder.bytes_per_second
    if not encoder.storable or told == 0:
        return
    with torch.no_grad():
        hidden, _ = encoder.extract(*case.audio([seconds * SAMPLE_RATE]))
    found = hidden.numel() * hidden.element_size() / seconds
    demand(
        found / FACTOR <= told <= found * FACTOR,
        f"bytes_per_second is {told:g}, but a second of hidden has {found:g} bytes",
    )


def check_gradients(case: EncoderCase) -> None:
    """What is trained learns; what is frozen stays as it is, and gets no gradient."""
    encoder = case.encoder().train()
    learns = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    groups = encoder.param_groups(1e-3)
    listed = [id(p) for group in groups for p in group["params"]]
    lost = [n for n, p in learns.items() if id(p) not in listed]
    demand(not lost, f"param_groups leave out {many(lost)} trainable parameters")
    demand(
        len(listed) == len(set(listed)) == len(learns),
        "param_groups list a parameter twice, or one that is frozen",
    )
    if not learns:
        return
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    fixed = encoder.frozen_keys() | {n for n, p in encoder.named_parameters() if n not in learns}
    optimiser, alive = torch.optim.Adam(groups), set()
    g = torch.Generator().manual_seed(3)
    direction = torch.randn(encoder.dim, generator=g)
    for step in range(3):  # adapters start at zero, and wake what lies behind them a step later
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)
            audio, lengths = case.audio([16_000, 9_000, 12_000], seed=step)
            with torch.set_grad_enabled(not encoder.storable):
                hidden, mask = encoder.extract(audio, lengths)
            x = encoder(hidden, mask).x.float()
        loss = (x * direction).mean() + x.square().mean()
        optimiser.zero_grad()
        loss.backward()
        grads = {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
        broken = [n for n, grad in grads.items() if not grad.isfinite().all()]
        demand(not broken, f"the gradient of {many(broken)} is NaN or infinite")
        alive |= {n for n, grad in grads.items() if grad.any()}
        optimiser.step()
    dead = [n for n in learns if n not in alive]
    demand(
        not dead,
        f"gradient is missing or zero in three steps for {many(dead)}: nothing is learnt there; "
        "remove them, or freeze them with requires_grad_(False)",
    )
    after = encoder.state_dict()
    moved = [k for k in sorted(fixed & set(before)) if not torch.equal(before[k], after[k])]
    demand(
        not moved,
        f"{many(moved)} moved in training, but frozen_keys() or requires_grad say that they stay: "
        "they would not be saved",
    )


def check_state(case: EncoderCase) -> None:
    """Saved without what is frozen and loaded into a new encoder, it gives the same frames."""
    encoder, other = case.encoder(seed=0), case.encoder(seed=8)
    frozen = encoder.frozen_keys()
    unknown = sorted(frozen - set(encoder.state_dict()))
    demand(not unknown, f"frozen_keys() names {many(unknown)}, which the state dict does not have")
    buffer = io.BytesIO()
    torch.save({k: v for k, v in encoder.state_dict().items() if k not in frozen}, buffer)
    buffer.seek(0)
    result = other.load_state_dict(torch.load(buffer, weights_only=True), strict=False)
    missing = [k for k in result.missing_keys if k not in frozen]
    demand(not missing, f"a saved encoder lacks {many(missing)} keys")
    a, b = (case.frames(e, *case.audio()) for e in (encoder, other))
    demand_close(
        a.x,
        b.x,
        "an encoder loaded from a state dict gives other frames: keep what it learns or draws in "
        "parameters and buffers",
    )


ENCODER_CHECKS: dict[str, Callable[[EncoderCase], None]] = {
    "constructor": check_constructor,
    "shape": check_shape,
    "mask": check_mask,
    "alone": check_alone,
    "padding": check_padding,
    "lengths": check_lengths,
    "repeat": check_repeat,
    "extraction": check_extraction,
    "bytes": check_bytes,
    "gradients": check_gradients,
    "state": check_state,
}


def _rows() -> list[tuple[int, int]]:
    return list(enumerate(LENGTHS))


def _real(hidden: Tensor, mask: Tensor, i: int) -> Tensor:
    """``[K, T, D0]`` of an utterance, its real frames only."""
    return hidden[i, :, mask[i]]


def _of(frames: Frames, i: int) -> Tensor:
    """``[T, D]`` of an utterance, its real frames only."""
    return frames.x[i, frames.mask[i]]
