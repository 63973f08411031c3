"""Webhooks: the settings API, who is told what, and the delivery (asynchronous, once, never retried)."""

import asyncio
import http.client
import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response

from .access import org_role, signed_in
from .errors import HubError, bad_request
from .info import tags_of
from .records import Discussion, Org, Repo, Token, User, Webhook, new_id
from .routing import Call, Router

if TYPE_CHECKING:
    from .hub import Hub

router = Router()
WATCHED_TYPES = ("dataset", "model", "space", "user", "org")
DOMAINS = ("repo", "discussion")


@dataclass(frozen=True)
class Event:
    """Something that happened to a repository, before it is written as a payload."""

    scope: str
    action: str
    discussion: Discussion | None = None
    comment: dict[str, Any] | None = None
    updated_refs: list[dict[str, str | None]] | None = None
    updated_config: dict[str, Any] | None = None
    moved_to: dict[str, Any] | None = None


@dataclass
class Delivery:
    """One POST to one webhook; `status` is what the receiver answered, `error` why there was no answer."""

    webhook: str
    url: str
    payload: dict[str, Any]
    status: int | None = None
    error: str | None = None
    done: bool = False
    id: str = field(default_factory=new_id)
    time: float = field(default_factory=time.time)


def ref_update(ref: str, old: str | None, new: str | None) -> Event:
    return Event("repo.content", "update", updated_refs=[{"ref": ref, "oldSha": old, "newSha": new}])


class Webhooks:
    def __init__(self, hub: "Hub"):
        self.hub = hub
        self.deliveries: list[Delivery] = []
        self._queues: dict[str, asyncio.Queue[Delivery]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def publish(self, repo: Repo, *events: Event) -> None:
        """Queue a delivery for every webhook that watches the repository and may see it."""
        hooks = [hook for hook in self.hub.records.all(Webhook) if not hook.disabled and self._watches(hook, repo)]
        ordered = events if self.hub.settings.webhook_order == "natural" else tuple(reversed(events))
        for event in ordered if hooks else ():
            for hook in hooks:
                if event.scope.split(".")[0] in hook.domains:
                    self.send(Delivery(hook.id, hook.url, self.payload(hook, repo, event)))

    def send(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if delivery.webhook not in self._queues:
            self._queues[delivery.webhook] = asyncio.Queue()
            self._tasks.append(asyncio.get_running_loop().create_task(self._work(self._queues[delivery.webhook])))
        self._queues[delivery.webhook].put_nowait(delivery)

    async def drained(self) -> None:
        """Wait until every delivery so far was answered or failed."""
        while not all(delivery.done for delivery in self.deliveries):
            await asyncio.sleep(0.005)

    def clear(self) -> None:
        self.deliveries = [delivery for delivery in self.deliveries if not delivery.done]

    def _watches(self, hook: Webhook, repo: Repo) -> bool:
        watched = any(
            (item["type"] == repo.kind and item["name"] == repo.name)
            or (item["type"] in ("user", "org") and item["name"] == repo.namespace)
            for item in hook.watched
        )
        return watched and (not repo.private or self._owner_sees(hook, repo))

    def _owner_sees(self, hook: Webhook, repo: Repo) -> bool:
        return org_role(self.hub.records, hook.owner, repo.namespace) is not None

    async def _work(self, queue: "asyncio.Queue[Delivery]") -> None:
        while True:
            delivery = await queue.get()
            hook = self.hub.records.get(Webhook, delivery.webhook)
            try:
                secret, timeout = (hook.secret if hook else None), self.hub.settings.webhook_timeout
                delivery.status = await asyncio.to_thread(_post, delivery.url, delivery.payload, secret, timeout)
            except (OSError, http.client.HTTPException) as error:
                delivery.error = f"{type(error).__name__}: {error}"
            delivery.done = True

    def payload(self, hook: Webhook, repo: Repo, event: Event) -> dict[str, Any]:
        url = self.hub.url
        repo_json: dict[str, Any] = {
            "type": repo.kind,
            "name": repo.name,
            "id": repo.id,
            "private": repo.private,
            "url": {"web": url + repo.web_path, "api": url + repo.api_path},
            "owner": {"id": owner_id(self.hub, repo.namespace)},
        }
        if event.scope.startswith("repo"):
            head = self.hub.head(repo) if event.action != "delete" else None
            repo_json |= {"headSha": head, "tags": tags_of(self.hub, repo, head) if head else []}
        payload: dict[str, Any] = {"event": {"action": event.action, "scope": event.scope}, "repo": repo_json}
        if event.discussion is not None:
            payload["discussion"] = self._discussion(repo, event.discussion)
        if event.comment is not None:
            assert event.discussion is not None
            payload["comment"] = self._comment(repo, event.discussion, event.comment)
        payload["webhook"] = {"id": hook.id, "version": 3}
        optional = {
            "updatedRefs": event.updated_refs,
            "updatedConfig": event.updated_config,
            "movedTo": event.moved_to,
        }
        return payload | {name: value for name, value in optional.items() if value is not None}

    def _discussion(self, repo: Repo, discussion: Discussion) -> dict[str, Any]:
        url = self.hub.url
        found: dict[str, Any] = {
            "id": discussion.id,
            "title": discussion.title,
            "url": {
                "web": f"{url}{repo.web_path}/discussions/{discussion.num}",
                "api": f"{url}{repo.api_path}/discussions/{discussion.num}",
            },
            "status": discussion.status,
            "author": {"id": user_id(self.hub, discussion.author)},
            "num": discussion.num,
            "isPullRequest": discussion.is_pull_request,
        }
        if discussion.is_pull_request:
            found["changes"] = {"base": discussion.base}
            if discussion.merge_commit:
                found["changes"]["mergeCommitId"] = discussion.merge_commit
        return found

    def _comment(self, repo: Repo, discussion: Discussion, comment: dict[str, Any]) -> dict[str, Any]:
        data = comment["data"]
        found: dict[str, Any] = {
            "id": comment["id"],
            "author": {"id": user_id(self.hub, comment["author"])},
            "hidden": data["hidden"],
            "url": {"web": f"{self.hub.url}{repo.web_path}/discussions/{discussion.num}#{comment['id']}"},
        }
        if not data["hidden"]:
            found["content"] = data["latest"]["raw"]
        return found


def _post(url: str, payload: dict[str, Any], secret: str | None, timeout: float) -> int:
    """One POST. Returns the status of the answer; raises when there is none."""
    parts = urlsplit(url)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=timeout)
    headers = {"Content-Type": "application/json", "User-Agent": "local-hub-webhooks"}
    if secret is not None:
        headers["X-Webhook-Secret"] = secret
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, json.dumps(payload).encode(), headers)
        return connection.getresponse().status
    finally:
        connection.close()


def user_id(hub: "Hub", name: str) -> str | None:
    user = hub.records.get(User, name)
    return user.id if user else None


def owner_id(hub: "Hub", namespace: str) -> str | None:
    org = hub.records.get(Org, namespace)
    return org.id if org else user_id(hub, namespace)


def _json(hook: Webhook) -> dict[str, Any]:
    shown = asdict(hook)
    for hidden in ("owner", "created"):
        del shown[hidden]
    return shown


def _mine(hub: "Hub", call: Call) -> Webhook:
    hook = hub.records.get(Webhook, call.params["webhook"])
    if hook is None or hook.owner != signed_in(call).user.name:
        raise HubError(404, "Webhook not found")
    return hook


def _editor(call: Call) -> Token:
    token = signed_in(call).token
    allowed = token.role == "write" or "user.webhooks.write" in token.permissions.get("global", [])
    if not allowed or token.resource is not None:
        raise HubError(403, "Forbidden: this token may not change webhooks.")
    return token


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that a request may set, checked. Raises 400."""
    if "url" in values and urlsplit(str(values["url"])).scheme not in ("http", "https"):
        raise bad_request("Invalid url")
    for item in values.get("watched", []):
        if not isinstance(item, dict) or item.get("type") not in WATCHED_TYPES or not item.get("name"):
            raise bad_request("Invalid watched item")
    if any(domain not in DOMAINS for domain in values.get("domains", [])):
        raise bad_request("Invalid domain")
    return {name: values[name] for name in ("url", "watched", "domains", "secret") if name in values}


@router.add("GET", "/api/settings/webhooks")
async def list_webhooks(hub: "Hub", call: Call) -> Response:
    owner = signed_in(call).user.name
    return JSONResponse([_json(hook) for hook in hub.records.all(Webhook) if hook.owner == owner])


@router.add("POST", "/api/settings/webhooks", writes=True)
async def create_webhook(hub: "Hub", call: Call) -> Response:
    _editor(call)
    values = _checked(await call.json())
    if "url" not in values or not values.get("watched"):
        raise bad_request("A webhook needs a url and something to watch")
    hook = Webhook(signed_in(call).user.name, **({"domains": list(DOMAINS)} | values))
    hub.records.save(hook)
    return JSONResponse({"webhook": _json(hook)})


@router.add("GET", "/api/settings/webhooks/{webhook}")
async def get_webhook(hub: "Hub", call: Call) -> Response:
    return JSONResponse({"webhook": _json(_mine(hub, call))})


@router.add("POST", "/api/settings/webhooks/{webhook}", writes=True)
async def update_webhook(hub: "Hub", call: Call) -> Response:
    _editor(call)
    hook = _mine(hub, call)
    for name, value in _checked(await call.json()).items():
        setattr(hook, name, value)
    hub.records.save(hook)
    return JSONResponse({"webhook": _json(hook)})


@router.add("DELETE", "/api/settings/webhooks/{webhook}", writes=True)
async def delete_webhook(hub: "Hub", call: Call) -> Response:
    _editor(call)
    hub.records.delete(_mine(hub, call))
    return JSONResponse({})


@router.add("POST", "/api/settings/webhooks/{webhook}/(?P<switch>enable|disable)", writes=True)
async def switch_webhook(hub: "Hub", call: Call) -> Response:
    _editor(call)
    hook = _mine(hub, call)
    hook.disabled = call.params["switch"] == "disable"
    hub.records.save(hook)
    return JSONResponse({"webhook": _json(hook)})
