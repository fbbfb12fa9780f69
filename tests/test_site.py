"""The site: what the code tells, links that lead to pages, and a build without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import browser
import pytest
from serzoo.zoo.cli import VERBS
from serzoo.zoo.core import listing
from serzoo.zoo.run import schema

pytest.importorskip("mkdocs")
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("text", "source", "page", "led"),
    [
        ("[a](docs/x/cli.md)", "README.md", "index.md", "a"),  # there is no such file
        ("[a](docs/reference/cli.md#b)", "README.md", "index.md", "[a](reference/cli.md#b)"),
        ("[a](../../CONTRIBUTING.md)", "docs/a/b.md", "a/b.md", "[a](../contributing.md)"),
        ("[a](../README.md)", "docs/a.md", "a.md", "[a](index.md)"),
        ("[a](../../heads/README.md)", "docs/a/b.md", "a/b.md", "a"),
        ("![a](benchmarks/screenshots/x.png)", "README.md", "index.md", "![a](screenshots/x.png)"),
        ("[a](https://e.org) [b](#c)", "README.md", "index.md", "[a](https://e.org) [b](#c)"),
    ],
)
def test_links_lead_to_pages_of_the_site(
    hooks: ModuleType, text: str, source: str, page: str, led: str
) -> None:
    assert hooks._led(text, source, page) == led


def test_every_key_is_told_with_its_comment(hooks: ModuleType) -> None:
    found = {key: (kind, meaning) for key, kind, _, meaning in hooks._keys(schema.RunConfig)}
    assert len(found) >= 50
    assert {"seed", "data.workers", "optim.lr", "trainer.logger"} <= set(found)
    assert [key for key, (kind, meaning) in found.items() if not (kind and meaning)] == []
    assert found["optim.lr"][1] == "peak learning rate"


def test_comments_are_found_behind_and_above(hooks: ModuleType) -> None:
    found = hooks.comments_of(schema.OptimConfig)
    assert found["accumulate"] == "batches whose gradients make one step"  # behind
    assert found["schedule"] == "how the rate falls afterwards"  # above
    assert found["min_steps"].endswith("so that runs differ in labels and not in steps.")  # 3 lines


def test_the_pages_of_the_code_are_whole(hooks: ModuleType) -> None:
    verbs = hooks.verbs_page()
    assert re.findall(r"^## serzoo (\w+)$", verbs, re.MULTILINE) == list(VERBS)
    parts = hooks.parts_page()
    for kind in listing.KINDS:
        assert [name for name in listing.names(kind) if f"| {name} |" not in parts] == []
    assert "### head `selm`" in parts
    assert "<corpus>" not in hooks.keys_page()


def test_every_page_stands_in_the_menu() -> None:
    told = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    listed = re.findall(r"([\w./-]+)\.md$", told, re.MULTILINE)
    docs = ROOT / "docs"
    pages = [p for p in docs.rglob("*.md") if p.parent != docs or p.stem not in ("README",)]
    found = {p.relative_to(docs).with_suffix("").as_posix() for p in pages}
    found |= {f"notebooks/{p.stem}" for p in (docs / "notebooks").glob("*.py")}
    assert len(found) >= 40
    assert found - set(listed) == set()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_builds_and_asks_no_other_server(tmp_path: Path) -> None:
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) >= 53
    assert len(list((tmp_path / "notebooks").glob("*/index.html"))) == 8
    assert len(list((tmp_path / "notebooks").glob("*.ipynb"))) == 8
    _follows_the_system(tmp_path)
    for page in pages:
        text = page.read_text("utf-8")
        assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://[^"]+"', text) == [], (
            page
        )


def _follows_the_system(site: Path) -> None:
    """A reader whose system turns dark sees a dark page, though the first visit was by day."""
    if (found := browser.programs()) is None:
        return
    files = partial(SimpleHTTPRequestHandler, directory=str(site))
    served = ThreadingHTTPServer(("127.0.0.1", 0), files)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    shades = []
    with browser.Browser(*found) as window:
        for scheme, page in (("light", "results/speed"), ("dark", "results/which-head")):
            window.scheme(scheme)
            window.open(f"http://127.0.0.1:{served.server_address[1]}/{page}/")
            end = time.monotonic() + 10
            wanted = "slate" if scheme == "dark" else "default"
            while (is_now := window.run("return document.body.dataset.mdColorScheme")) != wanted:
                assert time.monotonic() < end, (scheme, is_now)
                time.sleep(0.1)
            shades.append(window.run("return getComputedStyle(document.body).backgroundColor"))
            assert [e for e in window.console() if e["level"] == "SEVERE"] == []
    served.shutdown()
    assert len(set(shades)) == 2
