"""The check of the contract kit for classes that are added to a trained head."""

from __future__ import annotations

import torch

from ..errors import ConfigError
from ..taxonomy import Taxonomy
from ..types import Targets
from .case import LENGTHS, Case, demand, demand_close, some, trainable

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
    demand(not dead, f"the loss of a widened head does not reach {some(dead)}")
    other = case.head(seed=5)
    other.widen(wide)
    other.load_state_dict(head.state_dict())
    demand_close(
        case.scores(head, frames, wide),
        case.scores(other, frames, wide),
        "a widened head's scores are not all in its state dict",
    )
