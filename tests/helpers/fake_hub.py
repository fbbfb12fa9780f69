"""A hub without a network: what it answers about commits, files and pull requests."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import BlobLfsInfo, ModelInfo
from huggingface_hub.utils import httpx

COMMIT = "0123456789" * 4
OTHER = "fedcba9876" * 4


class FakeHub:
    """Stands in for ``HfApi``; ``FakeHub()`` is its own constructor.

    Args:
        repos: hub id to revision (None = the main branch) to commit and SHA-256 of weights.
        pulls: hub id to the pull requests of the conversion bot: reference and parent commit.
    """

    def __init__(
        self,
        repos: dict[str, dict[str | None, tuple[str, dict[str, str]]]],
        pulls: dict[str, list[tuple[str, str]]] | None = None,
    ) -> None:
        self.repos, self.pulls = repos, pulls or {}
        self.asked: list[tuple[str, str | None]] = []
        self.down = False

    def __call__(self) -> FakeHub:
        return self

    def model_info(
        self, name: str, *, revision: str | None = None, files_metadata: bool = False
    ) -> ModelInfo:
        self.asked.append((name, revision))
        if self.down:
            raise httpx.ConnectError("no route")
        if name not in self.repos:
            raise _refusal(RepositoryNotFoundError, f"Repository Not Found: {name}")
        if revision not in self.repos[name]:
            raise _refusal(RevisionNotFoundError, f"Revision Not Found: {revision}")
        sha, weights = self.repos[name][revision]
        assert files_metadata, "without it the hub gives no hashes"
        info = ModelInfo(id=name, sha=sha, tags=[], siblings=[{"rfilename": "config.json"}])
        assert info.siblings is not None
        for file, digest in weights.items():
            lfs = BlobLfsInfo(size=1, sha256=digest, pointer_size=1)
            info.siblings.append(SimpleNamespace(rfilename=file, lfs=lfs))  # type: ignore[arg-type]
        return info

    def get_repo_discussions(self, name: str, **only: Any) -> list[Any]:
        assert only == {
            "author": "SFconvertbot",
            "discussion_type": "pull_request",
            "discussion_status": "open",
        }
        return [
            SimpleNamespace(title="Adding `safetensors` variant of this model", git_reference=ref)
            for ref, _ in self.pulls.get(name, [])
        ]

    def list_repo_commits(self, name: str, *, revision: str) -> list[Any]:
        parent = dict(self.pulls[name])[revision]
        return [SimpleNamespace(commit_id="of the bot"), SimpleNamespace(commit_id=parent)]


def _refusal(kind: Any, text: str) -> Exception:
    request = httpx.Request("GET", "https://huggingface.co")
    error: Exception = kind(text, response=httpx.Response(404, request=request))
    return error
