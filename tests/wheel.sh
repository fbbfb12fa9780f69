#!/bin/sh
# The wheel in an empty environment, away from the checkout: import every module, list, quickstart.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$BIN/python" -m build --wheel --no-isolation --outdir "$work" . >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"${PYTHON:-python3}" -m venv "$work/venv"
pip="$work/venv/bin/python -m pip install --quiet --constraint $(pwd)/constraints.txt"
$pip torch
$pip "$(ls "$work"/*.whl)[quickstart]"
cd "$work"
venv/bin/python - <<'PY'
import importlib
import pkgutil
from importlib.resources import files

import serzoo

modules = sorted(m.name for m in pkgutil.walk_packages(serzoo.__path__, "serzoo."))
for name in modules:
    importlib.import_module(name)
assert len(modules) >= 50, modules
for package, template in (("report", "page.html.j2"), ("run", "card.md.j2")):
    assert (files(f"serzoo.zoo.{package}") / template).is_file(), template
print(f"imported {len(modules)} modules from {list(serzoo.__path__)}")
PY
venv/bin/serzoo list
SERZOO_CACHE="$work/cache" venv/bin/serzoo compare quickstart
