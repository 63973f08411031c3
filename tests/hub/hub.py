"""The Hub's state in one object: records, repositories on disk, the URL signer, webhooks, journal and faults."""

import shutil
from collections import OrderedDict
from pathlib import Path

from .faults import Faults
from .git import MAIN, GitRepo
from .info import Snapshot
from .journal import Journal
from .lfs import LfsObjects
from .limits import RateLimits
from .records import Discussion, Records, Redirect, Repo, Settings
from .storage import Signer
from .webhooks import Webhooks

KEPT_SNAPSHOTS = 1000


class Hub:
    def __init__(self, root: Path):
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.records = Records(root / "hub.sqlite")
        self.signer = Signer(_ensure(root / "secrets") / "urls")
        self.journal = Journal(root / "journal.jsonl")
        self.faults = Faults()
        self.limits = RateLimits()
        self.webhooks = Webhooks(self)
        self.url = ""
        self.storage_url = ""
        self._git: dict[str, GitRepo] = {}
        self._lfs: dict[str, LfsObjects] = {}
        self._snapshots: OrderedDict[tuple[str, str], Snapshot] = OrderedDict()

    @property
    def settings(self) -> Settings:
        return self.records.settings

    # repositories

    def repo(self, kind: str, name: str) -> Repo | None:
        return self.records.get(Repo, f"{kind}/{name}")

    def name_of(self, repo_id: str | None) -> str | None:
        """The name of the repository with this id, for the journal."""
        return next((repo.name for repo in self.records.all(Repo) if repo.id == repo_id), None) if repo_id else None

    def redirect(self, kind: str, name: str) -> Repo | None:
        """The repository that once had this name."""
        seen = set()
        key = f"{kind}/{name}"
        while (record := self.records.get(Redirect, key)) and key not in seen:
            seen.add(key)
            key = record.target
        return self.records.get(Repo, key) if seen else None

    def git(self, repo: Repo) -> GitRepo:
        if repo.id not in self._git:
            self._git[repo.id] = GitRepo(self.folder(repo) / "git")
        return self._git[repo.id]

    def lfs(self, repo: Repo) -> LfsObjects:
        return self.lfs_by_id(repo.id)

    def lfs_by_id(self, repo_id: str) -> LfsObjects:
        if repo_id not in self._lfs:
            self._lfs[repo_id] = LfsObjects(self.root / "repos" / repo_id / "lfs")
        return self._lfs[repo_id]

    def folder(self, repo: Repo) -> Path:
        """A repository's folder bears its id, not its name: a rename moves nothing."""
        return _ensure(self.root / "repos" / repo.id)

    def snapshot(self, repo: Repo, commit: str) -> Snapshot:
        """What the files at a commit say about the repository; kept, because commits do not change."""
        key = (repo.id, commit)
        if key not in self._snapshots:
            self._snapshots[key] = Snapshot(self.git(repo), self.lfs(repo), commit)
            if len(self._snapshots) > KEPT_SNAPSHOTS:
                self._snapshots.popitem(last=False)
        return self._snapshots[key]

    def multipart_folder(self, upload: str) -> Path:
        return self.root / "multipart" / upload

    def head(self, repo: Repo) -> str | None:
        return self.git(repo).ref(MAIN)

    def discussion(self, repo: Repo, num: int) -> Discussion | None:
        return self.records.get(Discussion, f"{repo.key}#{num}")

    def rename(self, repo: Repo, name: str) -> None:
        """Give a repository another name; the old one redirects."""
        old = repo.key
        discussions = list(self.records.discussions(repo))
        self.records.delete(repo)
        repo.name = name
        self.records.save(repo)
        for discussion in discussions:
            self.records.delete(discussion)
            discussion.repo = repo.key
            self.records.save(discussion)
        if stale := self.records.get(Redirect, repo.key):
            self.records.delete(stale)
        self.records.save(Redirect(old, repo.key))

    def delete_repo(self, repo: Repo) -> None:
        for discussion in list(self.records.discussions(repo)):
            self.records.delete(discussion)
        self.records.delete(repo)
        if git := self._git.pop(repo.id, None):
            git.close()
        self._lfs.pop(repo.id, None)
        shutil.rmtree(self.root / "repos" / repo.id, ignore_errors=True)

    def close(self) -> None:
        for git in self._git.values():
            git.close()
        self.records.close()
        self.journal.close()


def _ensure(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
