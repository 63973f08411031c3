"""What we ask the Hub."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from modelexport_bot.hub.connection import Connection
from modelexport_bot.hub.records import Account, Comment, Commit, HubFile, RepoAt, Thread, ThreadHeading

TRUSTED_PUBLISHER = "[OIDC]"
"""Who the Hub says has written with a Trusted Publisher's token, which belongs to no account."""

_WRITING_ROLES = ("admin", "write")  # of an organisation; a contributor writes to repos of their own making only


class Reader(Connection):
    """The half of a :class:`~modelexport_bot.hub.writing.Hub` that changes nothing there."""

    _account: Account | None = None

    def account(self) -> Account | None:
        """Who we are; None without a token. Raises UnauthorizedError for a token that the Hub does not know."""
        if self._keyless is not None:
            return Account(TRUSTED_PUBLISHER)
        if self._token is None:
            return None
        if self._account is None:
            answer = self._read("this account", lambda api: api.whoami())
            access = (answer.get("auth") or {}).get("accessToken") or {}
            self._account = Account(name=answer["name"], read_only=access.get("role") == "read")
        return self._account

    def repo(self, repo: str, revision: str | None = None) -> RepoAt:
        """A model repo with all its files, their sizes and hashes, in one request. Follows renames."""
        info = self._read(repo, lambda api: api.model_info(repo, revision=revision, files_metadata=True), revision)
        files = [
            HubFile(
                path=sibling.rfilename,
                size=sibling.size or 0,
                blob_id=sibling.blob_id or "",
                sha256=sibling.lfs.sha256 if sibling.lfs else None,
            )
            for sibling in info.siblings or []
        ]
        card: dict[str, Any] = dict(vars(info.card_data)) if info.card_data else {}
        parameters = dict(info.safetensors.parameters) if info.safetensors else {}
        listed = {file.path: file for file in files}
        return RepoAt(info.id, info.sha or "", listed, card, bool(info.gated), parameters, dict(info.config or {}))

    def download(self, repo: str, path: str, sha: str, *, again: bool = False) -> Path:
        """One file of one commit, where downloads are kept. ``again``: what is kept there is wrong."""

        def fetch(api: HfApi) -> str:
            return str(api.hf_hub_download(repo, path, revision=sha, cache_dir=self._downloads, force_download=again))

        return Path(self._read(repo, fetch, sha))

    def commits(self, repo: str, revision: str, limit: int | None = None) -> list[Commit]:
        """The latest commits, newest first; None for all."""

        def fetch(api: HfApi) -> list[Commit]:
            found = api.list_repo_commits(repo, revision=revision)
            return [Commit(entry.commit_id, entry.title, tuple(entry.authors)) for entry in found]

        return self._read(repo, fetch, revision)[:limit]

    def threads(self, repo: str, author: str, *, pull_requests: bool = True) -> list[ThreadHeading]:
        """The pull requests (or discussions) that an account has opened on a repo, newest first."""
        kind = "pull_request" if pull_requests else "discussion"

        def fetch(api: HfApi) -> list[ThreadHeading]:
            found = api.get_repo_discussions(repo, author=author, discussion_type=kind)  # type: ignore[arg-type]
            return [ThreadHeading(entry.num, entry.title, entry.status) for entry in found]

        return sorted(self._read(repo, fetch), key=lambda heading: -heading.num)

    def thread(self, repo: str, num: int) -> Thread:
        """One pull request or discussion with its comments and commits."""
        details = self._read(f"{repo}, discussion {num}", lambda api: api.get_discussion_details(repo, num))
        return Thread(
            num=num,
            title=details.title,
            status=details.status,
            author=details.author,
            url=details.url,
            comments=tuple(
                Comment(event.id, event.author, event.content, event.hidden)
                for event in details.events
                if isinstance(event, huggingface_hub.DiscussionComment)
            ),
            pushed_by=tuple(
                event.author for event in details.events if isinstance(event, huggingface_hub.DiscussionCommit)
            ),
            closed_by=next(
                (
                    event.author
                    for event in reversed(details.events)
                    if isinstance(event, huggingface_hub.DiscussionStatusChange) and event.new_status == "closed"
                ),
                None,
            ),
        )

    def models_of(self, owner: str, limit: int | None = None) -> list[str]:
        """The ids of an owner's model repos, most recently changed first."""
        fetch: Callable[[HfApi], list[str]] = lambda api: [  # noqa: E731
            info.id for info in api.list_models(author=owner, sort="last_modified", limit=limit)
        ]
        return self._read(owner, fetch)

    def may_write(self, repo: str, user: str) -> bool:
        """Whether a user is known to have write access to a repo.

        In one's own namespace: nobody else. In an organisation: its members with the role ``admin`` or ``write``, where
        the Hub tells us roles. Where it does not, being a member says nothing (most may only read), so a member must
        also have a commit on the repo's main.
        """
        owner = repo.partition("/")[0]
        if user == owner:
            return True

        def fetch(api: HfApi) -> dict[str, str | None]:
            try:
                return {m.username: getattr(m, "role", None) for m in api.list_organization_members(owner)}
            except HfHubHTTPError as error:
                if error.response.status_code == 404:  # a user, not an organisation
                    return {}
                raise

        members = self._read(owner, fetch)
        if user not in members:
            return False
        role = members[user]
        return role in _WRITING_ROLES if role else any(user in entry.authors for entry in self.commits(repo, "main"))
