"""Who am I, may I, and the small endpoints that clients call on their way."""

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from .access import check_gate, check_owner, find_repo, signed_in
from .errors import BAD_CREDENTIALS, HubError
from .oidc import OIDC_USER
from .records import Org, iso
from .routing import Call, Router

if TYPE_CHECKING:
    from .hub import Hub

router = Router()


@router.add("GET", "/api/whoami-v2")
async def whoami(hub: "Hub", call: Call) -> Response:
    identity = signed_in(call)
    user, token = identity.user, identity.token
    if user.name == OIDC_USER:  # a trusted publisher's token belongs to no account
        raise HubError(401, BAD_CREDENTIALS)
    orgs = [
        {
            "type": "org",
            "id": org.id,
            "name": org.name,
            "fullname": org.name,
            "email": None,
            "canPay": False,
            "periodEnd": None,
            "avatarUrl": f"/avatars/{org.name}.svg",
            "roleInOrg": org.members[user.name],
            "isEnterprise": False,
        }
        for org in hub.records.all(Org)
        if user.name in org.members
    ]
    access_token: dict[str, Any] = {"displayName": token.name, "role": token.role, "createdAt": iso(token.created)}
    if token.role == "fineGrained":
        access_token["fineGrained"] = token.permissions
    return JSONResponse(
        {
            "type": "user",
            "id": user.id,
            "name": user.name,
            "fullname": user.fullname,
            "email": f"{user.name}@example.org",
            "emailVerified": True,
            "canPay": False,
            "periodEnd": None,
            "isPro": False,
            "avatarUrl": f"/avatars/{user.name}.svg",
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": access_token},
        }
    )


@router.add("GET", "/api/{kind}/{repo}/auth-check")
async def auth_check(hub: "Hub", call: Call) -> Response:
    check_gate(hub, call, find_repo(hub, call))
    return Response("OK")


@router.add("GET", "/api/{kind}/{repo}/auth-check/write", name="auth_check_write")
async def auth_check_write(hub: "Hub", call: Call) -> Response:
    repo = find_repo(hub, call)
    check_gate(hub, call, repo)
    check_owner(hub, call, repo, "Forbidden: you have no write access to this repository.")
    return Response("OK")


@router.add("GET", "/api/organizations/{org}/members")
async def organization_members(hub: "Hub", call: Call) -> Response:
    """Who belongs to an organisation. Roles are its own members' business."""
    org = hub.records.get(Org, call.params["org"])
    if org is None:
        raise HubError(404, "Organization not found")
    insider = call.identity is not None and call.identity.user.name in org.members
    members = [
        {"type": "user", "user": name, "fullname": name, "avatarUrl": f"/avatars/{name}.svg", "isPro": False}
        | ({"role": role} if insider else {})
        for name, role in org.members.items()
    ]
    return JSONResponse(members)


@router.add("GET", "/api/agent-harnesses", public=True)
async def agent_harnesses(hub: "Hub", call: Call) -> Response:
    return JSONResponse({"standardEnvVars": [], "harnesses": {}})
