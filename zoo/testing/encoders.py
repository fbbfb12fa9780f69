"""The checks of the contract kit for encoders: each is a promise of :class:`serzoo.zoo.Encoder`.

A failed check raises ``ContractError``. The message says what was found, what the contract demands,
and what to correct.
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
from .checks import demand, demand_close, demand_groups, many, trainable

LENGTHS = (3000, 1, 400, 399)
"""Samples. 400 are one frame of most published models; 399 are one sample too few."""

FACTOR = 3.0
"""Allowed factor between estimate and measurement. An encoder may cut silence, and a store may
halve the size of its numbers.
"""


@dataclass(frozen=True)
class EncoderCase:
    """An encoder under test, and its audio.

    Attributes:
        make: returns a new encoder, which is always the same except for random weights.
    """

    make: Callable[[], Encoder]

    def encoder(self, seed: int = 0) -> Encoder:
        """Return a new encoder in evaluation mode; the caller's random state stays unchanged."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make().eval()

    def audio(
        self, lengths: Sequence[int] = LENGTHS, *, more: int = 0, seed: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Return audio ``[B, S]`` and lengths ``[B]``: noise, with another level per utterance.

        Args:
            lengths: number of samples of each utterance; zeros follow its end.
            more: number of further zeros after the longest utterance.
            seed: seed of the noise.
        """
        g = torch.Generator().manual_seed(seed)
        audio = torch.zeros(len(lengths), max(lengths) + more)
        for i, n in enumerate(lengths):
            audio[i, :n] = 0.05 * (i + 1) * torch.randn(n, generator=g) + 0.01
        return audio, torch.tensor(list(lengths))

    def frames(self, encoder: Encoder, audio: Tensor, lengths: Tensor) -> Frames:
        """Return the frames that heads see, without a gradient."""
        with torch.no_grad():
            found: Frames = encoder(*encoder.extract(audio, lengths))
            return found


def check_constructor(case: EncoderCase) -> None:
    """Check that all options are keyword-only and annotated."""
    for p in inspect.signature(type(case.encoder())).parameters.values():
        ok = p.kind is p.KEYWORD_ONLY and p.annotation is not p.empty
        demand(ok, f"option '{p.name}' must be keyword-only (after *) and annotated")


def check_shape(case: EncoderCase) -> None:
    """Check for finite ``hidden [B, K, T, D0]``, ``mask [B, T]``, and frames ``[B, T', dim]``."""
    encoder, n = case.encoder(), len(LENGTHS)
    with torch.no_grad():
        hidden, mask = encoder.extract(*case.audio())
        frames = encoder(hidden, mask)
    demand(
        hidden.dim() == 4 and hidden.is_floating_point() and len(hidden) == n,
        f"hidden is {hidden.dtype} {tuple(hidden.shape)}; return floating-point [{n}, K, T, D0]",
    )
    want = (n, hidden.shape[2])
    demand(mask.shape == want, f"the mask of hidden is {tuple(mask.shape)}; return {want}")
    x, shape = frames.x, (n, frames.mask.shape[-1], encoder.dim)
    demand(
        x.shape == shape and frames.mask.shape == shape[:2],
        f"frames are {tuple(x.shape)} with a mask {tuple(frames.mask.shape)}; with this mask and "
        f"dim they must be {shape}",
    )
    ok = bool(hidden.isfinite().all()) and bool(x.isfinite().all())
    demand(ok, "hidden or frames hold NaN or infinite values; keep them finite")


def check_mask(case: EncoderCase) -> None:
    """Check that a mask is True for the utterance's frames only, and hidden is zero after them."""
    encoder = case.encoder()
    audio, lengths = case.audio()
    with torch.no_grad():
        hidden, mask = encoder.extract(audio, lengths)
        frames = encoder(hidden, mask)
        alone = [encoder.extract(audio[i : i + 1, :k], lengths[i : i + 1]) for i, k in _rows()]
        single = [encoder(*found).mask.sum().item() for found in alone]
    for what, m in (("hidden", mask), ("frames", frames.mask)):
        demand(m.dtype == torch.bool, f"the mask of {what} is {m.dtype}; return bool")
        demand(
            bool(m.any(1).all()),
            f"the mask of {what} has a row without True; give every utterance at least one frame",
        )
        gaps = bool((m[:, 1:] & ~m[:, :-1]).any())
        demand(
            not gaps,
            f"the mask of {what} has gaps; it must be True from the first frame to the last one",
        )
    silent = not hidden.masked_fill(mask[:, None, :, None], 0.0).any()
    demand(silent, "hidden is not zero where its mask is False; multiply it by the mask")
    counts = [found[1].sum().item() for found in alone]
    demand(
        mask.sum(1).tolist() == counts,
        f"the mask has {mask.sum(1).tolist()} frames in a batch, but {counts} alone; compute it "
        "from lengths, not from the shape of the audio",
    )
    got = frames.mask.sum(1).tolist()
    demand(
        got == single,
        f"the mask after forward has {got} frames in a batch, but {single} alone; compute it from "
        "the mask of hidden",
    )


def check_alone(case: EncoderCase) -> None:
    """Check that an utterance has the same hidden states and frames alone and in a batch."""
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
                f"the {what} of {n} samples differ alone and in a batch; use no statistics over "
                "the batch, or over padding",
            )


def check_padding(case: EncoderCase) -> None:
    """Check that more zeros after the longest utterance have no effect."""
    encoder = case.encoder()
    plain = case.frames(encoder, *case.audio())
    longer = case.frames(encoder, *case.audio(more=1700))
    for i, n in _rows():
        a, b = _of(plain, i), _of(longer, i)
        k = min(len(a), len(b))
        demand_close(
            a[:k],
            b[:k],
            f"1700 zeros after the batch change the frames of {n} samples; mask the padding",
        )


def check_lengths(case: EncoderCase) -> None:
    """Check that longer speech has more frames, every ``frame_seconds``, and that they differ.

    With ``frame_seconds = 0`` every utterance must have one frame.
    """
    encoder = case.encoder()
    seconds = 4
    with torch.no_grad():
        audio, lengths = case.audio([seconds * SAMPLE_RATE, seconds * SAMPLE_RATE // 2])
        _, mask = encoder.extract(audio, lengths)
    long, short = mask.sum(1).tolist()
    whole = encoder.frame_seconds == 0
    demand(
        long == short == 1 if whole else long > short,
        f"{seconds} s have {long} frames, and {seconds // 2} s have {short}; "
        + (
            "frame_seconds=0 says that an utterance is one frame"
            if whole
            else "longer speech must have more frames; if an utterance is one frame, set "
            "frame_seconds=0"
        ),
    )
    expected = 1.0 if whole else seconds / encoder.frame_seconds
    demand(
        expected / FACTOR <= long <= expected * FACTOR,
        f"{seconds} s have {long} frames of hidden, but by frame_seconds={encoder.frame_seconds:g} "
        f"there are {expected:.0f}; correct frame_seconds, by which batches are packed",
    )
    x = case.frames(encoder, audio, lengths)
    gap = (x.x[0, 0] - x.x[1, 0]).abs().max()
    demand(bool(gap > 0), "two utterances have the same frames; the frames must depend on audio")


def check_repeat(case: EncoderCase) -> None:
    """Check that ``extract`` and, in evaluation mode, ``forward`` are deterministic."""
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
                f"the output of extract {mode}differs from call to call, but it may be stored; "
                "draw noise in forward, in training only",
            )
        untouched = torch.equal(before, torch.get_rng_state())
        demand(untouched, "extract draws from torch's global random numbers; draw none")
        encoder.eval()
        a = case.frames(encoder, *case.audio()).x
        torch.manual_seed(5)
        same = torch.equal(a, case.frames(encoder, *case.audio()).x)
    demand(
        same,
        "the output of forward differs from call to call in evaluation mode; augment in training "
        "only",
    )


def check_extraction(case: EncoderCase) -> None:
    """Check that ``extraction()`` is plain JSON, and equal for equal encoders, if it is needed."""
    encoder = case.encoder()
    if not encoder.storable:
        return
    try:
        about = encoder.extraction()
    except TypeError as error:
        demand(False, f"storable is True, but extraction() fails ({error}); write it")
        return
    try:
        plain = json.loads(json.dumps(about, allow_nan=False))
    except (TypeError, ValueError) as error:
        plain = error
    demand(
        isinstance(about, dict) and bool(about) and plain == about,
        f"extraction() is not plain JSON ({plain}); return a dict of text, finite numbers, lists "
        "and dicts",
    )
    demand(
        about == case.encoder().extraction(),
        "extraction() differs between two equal encoders; return only what decides the output",
    )
    if any(p.requires_grad for p in encoder.parameters()):
        hidden = encoder.train().extract(*case.audio())[0]
        demand(
            not hidden.requires_grad,
            "storable is True, but extract depends on trainable weights, so stored features would "
            "be out of date; set storable = False, or freeze the weights",
        )


def check_bytes(case: EncoderCase) -> None:
    """Check that ``bytes_per_second`` is about the size of stored features, or 0 = unknown."""
    encoder, seconds = case.encoder(), 4
    stated = encoder.bytes_per_second
    if not encoder.storable or stated == 0:
        return
    with torch.no_grad():
        hidden, _ = encoder.extract(*case.audio([seconds * SAMPLE_RATE]))
    found = hidden.numel() * hidden.element_size() / seconds
    demand(
        found / FACTOR <= stated <= found * FACTOR,
        f"bytes_per_second is {stated:g}, but a second of hidden has {found:g} bytes; correct it, "
        "or return 0",
    )


def check_gradients(case: EncoderCase) -> None:
    """Check that trainable weights learn, and that frozen ones stay unchanged."""
    encoder = case.encoder().train()
    learns, groups = trainable(encoder), encoder.param_groups(1e-3)
    demand_groups(encoder, groups)
    if not learns:
        return
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    fixed = encoder.frozen_keys() | {n for n, p in encoder.named_parameters() if n not in learns}
    optimiser, alive = torch.optim.Adam(groups), set()
    g = torch.Generator().manual_seed(3)
    direction = torch.randn(encoder.dim, generator=g)
    for step in range(3):  # behind adapters that start at zero, gradients come one step later
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
        demand(not broken, f"the gradient of {many(broken)} is NaN or infinite; keep it finite")
        alive |= {n for n, grad in grads.items() if grad.any()}
        optimiser.step()
    dead = [n for n in learns if n not in alive]
    demand(
        not dead,
        f"the gradient of {many(dead)} is missing or zero in three steps; use them in forward, "
        "remove them, or freeze them with requires_grad_(False)",
    )
    after = encoder.state_dict()
    moved = [k for k in sorted(fixed & set(before)) if not torch.equal(before[k], after[k])]
    demand(
        not moved,
        f"{many(moved)} changed in training, although frozen_keys() or requires_grad says that "
        "they are frozen, so they would not be saved; correct frozen_keys(), or freeze them",
    )


def check_state(case: EncoderCase) -> None:
    """Check that an encoder saved without frozen weights and loaded again gives the same frames."""
    encoder, other = case.encoder(seed=0), case.encoder(seed=8)
    frozen = encoder.frozen_keys()
    unknown = sorted(frozen - set(encoder.state_dict()))
    demand(
        not unknown,
        f"frozen_keys() has {many(unknown)}, which the state dict lacks; return keys of it only",
    )
    buffer = io.BytesIO()
    torch.save({k: v for k, v in encoder.state_dict().items() if k not in frozen}, buffer)
    buffer.seek(0)
    result = other.load_state_dict(torch.load(buffer, weights_only=True), strict=False)
    missing = [k for k in result.missing_keys if k not in frozen]
    demand(
        not missing,
        f"a saved encoder lacks {many(missing)} keys; do not remove learned values from its state "
        "dict",
    )
    a, b = (case.frames(e, *case.audio()) for e in (encoder, other))
    demand_close(
        a.x,
        b.x,
        "an encoder that is loaded from a state dict gives other frames; keep learned and drawn "
        "values in parameters and buffers",
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
    """Return ``[K, T, D0]`` of an utterance, without padding."""
    return hidden[i, :, mask[i]]


def _of(frames: Frames, i: int) -> Tensor:
    """Return ``[T, D]`` of an utterance, without padding."""
    return frames.x[i, frames.mask[i]]
