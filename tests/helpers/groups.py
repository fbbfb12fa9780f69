"""Groups of processes that tests start and end."""

from __future__ import annotations

import os
import subprocess
from typing import Any


def group_is_gone(process: subprocess.Popen[Any]) -> bool:
    """Whether no process of the group that this one leads is left."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False
