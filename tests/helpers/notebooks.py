"""Run the cells of a notebook in one process, as Jupyter would: python notebooks.py CELLS OUTPUTS.

CELLS is a JSON list of code. What each cell prints, and the value of its last line, go to OUTPUTS.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def run(code: str, names: dict[str, Any]) -> str:
    """What a cell prints on standard output. Lines that begin with ``!`` are run by a shell."""
    if code.startswith("!"):
        done = ""
        for line in code.splitlines():
            command = ["bash", "-c", line.removeprefix("!")]
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            done += result.stdout
        return done
    out = io.StringIO()
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(out):
        exec(compile(tree, "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            if value is not None:
                print(repr(value))
    return out.getvalue()


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = [run(code, names) for code in json.loads(source.read_text("utf-8"))]
    target.write_text(json.dumps(printed), "utf-8")
