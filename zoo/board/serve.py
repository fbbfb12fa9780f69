"""`serzoo tensorboard`: TensorBoard on the right folder."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .columns import EVENTS


def folder_of(what: str, out: str = "runs") -> Path:
    """The folder whose runs are to be compared.

    A suite's cells, without the trials of its search; else the folder as it is given.

    Args:
        what: a suite that was run (its name, or its file), or a folder.
        out: folder of all runs.

    Raises:
        ConfigError: where there is none, or nothing in it that TensorBoard could show.
    """
    path = Path(what)
    tried = (
        [Path(out) / path.stem] if path.suffix in (".yaml", ".yml") else [Path(out) / what, path]
    )
    found = next((p for p in tried if p.is_dir()), None)
    if found is None:
        raise ConfigError(
            f"no folder {' or '.join(map(str, tried))}; run `serzoo compare {what}` first, or give "
            "a folder of runs"
        )
    if (found / "cells").is_dir():
        found /= "cells"
    if next(found.rglob(EVENTS), None) is None:
        raise ConfigError(
            f"{found} holds no event files ({EVENTS}); they are written once the first epoch of a "
            "run has ended"
        )
    return found


def serve(
    what: str, *, out: str = "runs", host: str = "localhost", port: int = 6006, wait: bool = True
) -> str:
    """Start TensorBoard, and stay until Ctrl-C or SIGTERM.

    Args:
        what: a suite that was run, or a folder.
        out: folder of all runs.
        host: address to serve on.
        port: 0 = any that is free.
        wait: False = return while it serves in a thread.

    Returns:
        Its address.

    Raises:
        ConfigError: for a folder without runs, or a port that is taken.
    """
    from tensorboard import program

    folder = folder_of(what, out)
    board = program.TensorBoard()
    title = f"serzoo: {folder.parent.name if folder.name == 'cells' else folder.name}"
    options: dict[str, Any] = {"logdir": str(folder), "host": host, "port": port}
    board.configure(**options, window_title=title, reload_interval=15)
    try:
        url = str(board.launch())
    except program.TensorBoardServerException as error:
        raise ConfigError(
            f"TensorBoard cannot serve on {host}, port {port}: {error}; choose another --port "
            "(0 = any that is free)"
        ) from error
    print(f"TensorBoard of {folder}: {url} (Ctrl-C ends it)", flush=True)
    if wait:
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        ended.wait()
    return url
