"""What we change on the Hub, in writes that can be repeated.

The Hub has no idempotency keys, so when the answer to a write is lost nobody knows whether it was applied. Each write
here comes with a look at what it should have changed; before a write is sent again, that look decides whether there is
anything left to send.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from modelexport.contract.errors import UploadCorruptError
from modelexport_bot.hub.errors import HeadMovedError, uploads_unsettled
from modelexport_bot.hub.reading import Reader
from modelexport_bot.hub.records import Thread


class Hub(Reader):
    """One Hub, seen with one token. The arguments are those of :class:`~modelexport_bot.hub.connection.Connection`."""

    def open_draft(self, repo: str, title: str, body: str, is_ours: Callable[[Thread], bool]) -> int:
        """A new draft pull request; returns its number. ``is_ours`` recognises it if the answer is lost."""
        account = self.account()
        assert account is not None

        def look() -> int | None:
            drafts = [heading.num for heading in self.threads(repo, account.name) if heading.status == "draft"]
            return next((num for num in sorted(drafts) if is_ours(self.thread(repo, num))), None)

        send: Callable[[HfApi], int] = lambda api: api.create_pull_request(repo, title, description=body).num  # noqa: E731
        return self._write(repo, send, look)

    def open_discussion(self, repo: str, title: str, body: str) -> int:
        """A new discussion; returns its number."""
        account = self.account()
        assert account is not None

        def look() -> int | None:
            found = self.threads(repo, account.name, pull_requests=False)
            return next((heading.num for heading in found if heading.title == title), None)

        return self._write(repo, lambda api: api.create_discussion(repo, title, description=body).num, look)

    def commit(
        self,
        repo: str,
        ref: str,
        parent: str,
        message: str,
        *,
        add: Mapping[str, Path],
        delete: Iterable[str],
        applied: Callable[[], str | None],
    ) -> str:
        """One commit on a ref; returns the new head. Files that the Hub already holds are not sent again.

        Args:
            repo: the repo.
            ref: a pull request's ref.
            parent: the commit that must be the ref's head.
            message: of the commit.
            add: local file by path in the repo.
            delete: paths to remove.
            applied: looks whether the ref already holds what this commit would make of it, and returns its head if so.

        Raises:
            HeadMovedError: the ref's head is another one.
        """

        def send(api: HfApi) -> str:
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                CommitOperationDelete(path_in_repo=path, is_folder=False) for path in delete
            ]
            operations += [CommitOperationAdd(path_in_repo=path, path_or_fileobj=file) for path, file in add.items()]
            with uploads_unsettled():
                info = api.create_commit(repo, operations, commit_message=message, revision=ref, parent_commit=parent)
            return str(info.oid)

        return self._write(repo, send, applied)

    def comment(self, repo: str, num: int, text: str) -> None:
        """A comment in a thread; ``text`` must be unlike any comment of ours that is there already."""

        def look() -> bool | None:
            account = self.account()
            said = [
                entry.text.strip()
                for entry in self.thread(repo, num).comments
                if account and entry.author == account.name
            ]
            return True if text.strip() in said else None

        self._write(repo, lambda api: bool(api.comment_discussion(repo, num, text)), look)

    def edit_comment(self, repo: str, num: int, comment: str, text: str) -> None:
        """New text for a comment of ours. The same edit twice is one edit."""
        self._write(repo, lambda api: bool(api.edit_discussion_comment(repo, num, comment, text)), lambda: None)

    def rename(self, repo: str, num: int, title: str) -> None:
        """A new title for a thread."""

        def look() -> bool | None:
            return True if self.thread(repo, num).title == title else None

        self._write(repo, lambda api: bool(api.rename_discussion(repo, num, title)), look)

    def set_status(self, repo: str, num: int, status: str, comment: str | None = None) -> None:
        """Open (a draft too) or close a pull request, with a comment if given.

        Raises:
            HeadMovedError: it cannot be set, because somebody has merged or deleted it meanwhile.
        """

        def look() -> bool | None:
            return True if self.thread(repo, num).status == status else None

        def send(api: HfApi) -> bool:
            return bool(api.change_discussion_status(repo, num, status, comment=comment))  # type: ignore[arg-type]

        try:
            self._write(repo, send, look)
        except UploadCorruptError as error:  # 400, which the Hub also answers when it is so already
            if look() is None:
                raise HeadMovedError(error.message) from error
