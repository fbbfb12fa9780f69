"""The saved weights of a model, and checks that they fit: names, shapes, digests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from .errors import CheckpointError, some
from .hub import weights_digest
from .scaling import ADDED_LATER

FORMAT = 1


def strip_frozen(state: Mapping[str, Tensor], frozen: Collection[str]) -> dict[str, Tensor]:
    """Return the state dict without the entries that are rebuilt by name.

    Entries are chosen by key, not by ``requires_grad``: running statistics are buffers, and they
    are part of the trained model.
    """
    return {k: v for k, v in state.items() if k not in frozen}


def check_keys(
    saved: Mapping[str, Tensor], own: Mapping[str, Tensor], frozen: Collection[str]
) -> None:
    """Check that a state dict holds exactly the weights that this model saves.

    Buffers that were added later (:data:`.scaling.ADDED_LATER`) may be missing; they then have no
    effect.

    Raises:
        CheckpointError: if weights are missing, surplus or of another shape. The message names
            the first ones and their number.
    """
    wanted = strip_frozen(own, frozen)
    problems = []
    missing = sorted(k for k in set(wanted) - set(saved) if not k.endswith(ADDED_LATER))
    surplus = sorted(set(saved) - set(wanted))
    shapes = sorted(k for k in set(wanted) & set(saved) if wanted[k].shape != saved[k].shape)
    if missing:
        problems.append(f"lacks {len(missing)} weights that this model trains ({some(missing, 3)})")
    if surplus:
        problems.append(
            f"holds {len(surplus)} weights that this model does not have ({some(surplus, 3)})"
        )
    if shapes:
        k = shapes[0]
        problems.append(
            f"{len(shapes)} weights differ in shape ({k}: {list(saved[k].shape)} in the "
            f"checkpoint, {list(wanted[k].shape)} here)"
        )
    if problems:
        raise CheckpointError(
            "checkpoint "
            + "; ".join(problems)
            + "; build the model with the head, encoder and options that it was saved with"
        )


def published_parts(module: Any) -> dict[str, dict[str, Any]]:
    """Return the published parts of a model, each with its name, commit and digest of weights.

    Args:
        module: a module with an ``encoder`` and a ``head``.
    """
    about = module.encoder.describe()
    parts = {}
    if "weights" in about:
        parts["encoder"] = {k: about.get(k) for k in ("weights", "name", "revision", "commit")}
    origin: dict[str, Any]
    owners = [m for m in module.head.modules() if hasattr(m, "published_origin")]
    for name, root in module.head.frozen_roots().items():
        origin = next((m.published_origin for m in owners if root in set(m.modules())), {})
        parts[f"head.{name}"] = {"weights": weights_digest(root), **origin}
    return parts


def check_published(saved: Mapping[str, Any], own: Mapping[str, Any], where: str) -> None:
    """Check that trained weights are loaded on the published weights that they were trained on.

    Parts that were saved without a digest are not checked.

    Raises:
        CheckpointError: if the digests differ; the message gives both and their origin.
    """
    for part, trained in saved.items():
        here = own.get(part, {})
        if here.get("weights") != trained.get("weights"):
            raise CheckpointError(
                f"{where} was trained on published weights {trained.get('weights')} of its {part}"
                f"{_origin(trained)}, but those here are {here.get('weights')}{_origin(here)}; "
                "load it with the same ones: give their folder, or fetch that revision"
            )


def _origin(part: Mapping[str, Any]) -> str:
    if not part.get("name"):
        return ""
    asked, commit = part.get("revision"), part.get("commit")
    return (
        f" ('{part['name']}', revision {asked or 'not given'}"
        + (f", commit {commit}" if commit and commit != asked else "")
        + ")"
    )
