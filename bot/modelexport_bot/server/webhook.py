"""A delivery of the Hub's webhooks: whether it is from whom it should be, and what it says.

https://huggingface.co/docs/hub/webhooks. A delivery comes once and is never repeated by the Hub itself. It is signed
with nothing but the secret in a header, so that header is looked at before the body is.
"""

import hmac
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from modelexport_bot.credentials import Token

SECRET_HEADER = "X-Webhook-Secret"  # noqa: S105  (a name, not a secret)

LARGEST_BODY = 1 << 20
"""Bytes. A delivery is a few kilobytes; one with a long comment a few hundred."""

CommitSha = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
RepoId = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_.-]+/)?[A-Za-z0-9_.-]+$", max_length=200)]


class _Said(BaseModel):
    """Part of a payload: what we do not know is left alone, since the Hub may add to it."""

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel)


class Event(_Said):
    """What happened. ``scope`` is such as ``repo.content``, ``action`` such as ``update``."""

    action: str
    scope: str


class Repo(_Said):
    """Where it happened. ``type`` is model, dataset or space; ``name`` is the id, ``org/name``."""

    type: str
    name: RepoId
    private: bool


class UpdatedRef(_Said):
    """A ref that moved; no old commit: it is new; no new commit: it is gone."""

    ref: str
    old_sha: CommitSha | None = None
    new_sha: CommitSha | None = None


class Discussion(_Said):
    """The thread it happened in."""

    num: Annotated[int, Field(ge=1)]
    is_pull_request: bool


class Comment(_Said):
    """The comment that was written; a hidden one has no content."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=64)]
    content: str = ""
    hidden: bool = False


class Delivery(_Said):
    """The payload of one delivery, as far as anything here reads it."""

    event: Event
    repo: Repo
    discussion: Discussion | None = None
    comment: Comment | None = None
    updated_refs: Annotated[tuple[UpdatedRef, ...], Field(max_length=1000)] = ()


def authentic(given: str | None, secret: Token) -> bool:
    """Whether the header holds our secret; takes equally long however much of it is right."""
    return hmac.compare_digest((given or "").encode(), secret.reveal().encode())
