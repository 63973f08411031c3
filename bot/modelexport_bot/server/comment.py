"""A comment in a pull request's thread that addresses somebody starts a job that answers it, if it was us.

Whether the pull request is ours, who may ask and what the words mean is for :mod:`modelexport_bot.commands`, which
reads the thread itself; what the delivery says of the comment is used for this first look alone.
"""

import re

from modelexport_bot.server.router import Answer, Desk, Router
from modelexport_bot.server.webhook import Delivery

_ADDRESSES = re.compile(r"^[ \t]*@", re.MULTILINE)

router = Router()


@router.on("discussion.comment", "create")
def answer(delivery: Delivery, desk: Desk) -> Answer:
    """Hands in a job for the thread."""
    repo, thread, comment = delivery.repo, delivery.discussion, delivery.comment
    if repo.type != "model":
        return Answer(f"{repo.name} is a {repo.type}, not a model.")
    if thread is None or comment is None or not thread.is_pull_request:
        return Answer("This is no pull request.")
    if comment.hidden or not _ADDRESSES.search(comment.content):
        return Answer("The comment addresses nobody.")
    job = desk.reply(repo.name, thread.num, comment.id, private=repo.private)
    return Answer("Recorded." if job.new else "This comment has a job already.", job)
