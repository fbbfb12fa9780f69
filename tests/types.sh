#!/bin/sh
# mypy --strict on the wheel as a user installs it: the import root serzoo exists only there.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$BIN/python" -m build --wheel --no-isolation --outdir "$work" . >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$BIN/python" -m pip install --quiet --no-deps --target "$work/site" "$work"/*.whl
config=$(pwd)/pyproject.toml
cd "$work"
MYPYPATH="$work/site" "$OLDPWD/$BIN/mypy" --config-file "$config" --explicit-package-bases \
    --namespace-packages -p serzoo.zoo -p serzoo.heads -p serzoo.datamodules
