"""The taxonomy of a model that is adapted to labels which it never had."""

from __future__ import annotations

from ...core.errors import ConfigError
from ...core.taxonomy import Taxonomy


def widened(trained: Taxonomy, wanted: Taxonomy) -> Taxonomy:
    """The trained classes in their order, and behind them those of ``wanted`` that are not there.

    A class is the same where it has the same name. It is ``trained`` itself where nothing is new.

    Raises:
        ConfigError: when a new class gathers a label that a trained one has.
    """
    new = tuple(m for m in wanted.members if m[0] not in trained.classes)
    if not new:
        return trained
    owner = {label: c for c, labels in trained.members for label in labels}
    for c, labels in new:
        if taken := [label for label in labels if label in owner]:
            raise ConfigError(
                f"the new class '{c}' of taxonomy '{wanted.name}' gathers '{taken[0]}', which the "
                f"model's class '{owner[taken[0]]}' gathers already; give the target's class that "
                "name, or choose a taxonomy that does not divide it otherwise"
            )
    return Taxonomy(f"{trained.name} and {', '.join(c for c, _ in new)}", trained.members + new)
