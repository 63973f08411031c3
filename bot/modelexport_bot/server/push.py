"""A push to the default branch of a model starts a job.

Pull request refs, other branches and tags, datasets and spaces do not. Our own writes need no rule of their own: what
we push goes to a pull request's ref, and once that is merged the job finds its own export on ``main`` and ends there.

The commit is the one in ``updatedRefs``; ``repo.headSha`` is the head at the time of the delivery and may be a later
one.
"""

from modelexport_bot.server.router import Answer, Desk, Router
from modelexport_bot.server.webhook import Delivery

MAIN = "refs/heads/main"

router = Router()


@router.on("repo.content", "update")
def export(delivery: Delivery, desk: Desk) -> Answer:
    """Hands in a job for the new head of ``main``."""
    repo = delivery.repo
    if repo.type != "model":
        return Answer(f"{repo.name} is a {repo.type}, not a model.")
    moved = next((update for update in delivery.updated_refs if update.ref == MAIN), None)
    if moved is None:
        return Answer(f"{MAIN} did not move.")
    if moved.new_sha is None:
        return Answer(f"{MAIN} was deleted.")
    job = desk.export(repo.name, moved.new_sha, private=repo.private)
    return Answer("Recorded." if job.new else "This push has a job already.", job)
