"""What ``GET /jobs`` shows of a job: what everybody may see, so of a private repo's only that there is one."""

from datetime import UTC, datetime

from dbos import WorkflowStatus

from modelexport_bot.server.recorded import Json

FAILED = "failed"

_LONGEST_REASON = 300  # characters


def state(status: WorkflowStatus) -> str:
    """``queued``, ``running``, ``failed``, or the job's outcome."""
    match status.status:
        case "ENQUEUED" | "DELAYED":
            return "queued"
        case "PENDING":
            return "running"
        case "SUCCESS":
            assert status.output is not None
            return str(status.output["outcome"])
    return FAILED  # ERROR: a bug of ours; MAX_RECOVERY_ATTEMPTS_EXCEEDED: the server died of it; CANCELLED: by hand


def shown(status: WorkflowStatus) -> Json:
    """One job."""
    assert status.input is not None
    repo, _, private = status.input["args"]
    output = status.output or {}
    seen: Json = {"state": state(status), "code": output.get("code")}
    seen |= {"received": _time(status.created_at), "finished": _time(status.completed_at)}
    if private:
        return {"private": True} | seen
    reason = str(output.get("reason", "")).partition("\n")[0][:_LONGEST_REASON]
    return {"job": status.workflow_id, "repo": repo} | seen | {"reason": reason or None, "url": output.get("url")}


def _time(milliseconds: int | None) -> str | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds") if milliseconds else None
