"""Trusted Publishers: a CI job's identity token in exchange for a short-lived Hub token (RFC 8693).

Identity tokens are real JWTs, signed with this Hub's own key, which plays the CI provider's; `github_id_token` below
is what `ACTIONS_ID_TOKEN_REQUEST_URL` points to in a job.
Source: https://huggingface.co/docs/hub/trusted-publishers and huggingface_hub/_oidc.py (2.4.0).
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from .errors import HubError
from .records import Token, TokenRole, User
from .routing import Call, Router

if TYPE_CHECKING:
    from .hub import Hub

router = Router()
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:id_token"
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
ID_TOKEN_LIFETIME = 300
HEADER = b'{"alg":"HS256","typ":"JWT"}'
OIDC_USER = "[OIDC]"  # the synthetic user to whom pushes of trusted publishers are attributed
GATED_REPOS = "gated-repos"


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _signature(hub: "Hub", signed: str) -> str:
    return _encode(hmac.new(hub.signer.secret, signed.encode(), hashlib.sha256).digest())


def mint(hub: "Hub", claims: dict[str, Any]) -> str:
    """An identity token with these claims."""
    signed = f"{_encode(HEADER)}.{_encode(json.dumps(claims).encode())}"
    return f"{signed}.{_signature(hub, signed)}"


def verify(hub: "Hub", token: str) -> dict[str, Any]:
    """The claims of an identity token. Raises `ValueError` when it is not ours, or too old."""
    signed, _, signature = token.rpartition(".")
    if not hmac.compare_digest(signature, _signature(hub, signed)):
        raise ValueError("the signature of the identity token is not valid")
    claims: dict[str, Any] = json.loads(_decode(signed.partition(".")[2]))  # binascii.Error is a ValueError
    if claims.get("exp", 0) < time.time():
        raise ValueError("the identity token has expired")
    return claims


def _refused(error: str, description: str) -> HubError:
    """OAuth's way to refuse. The description never tells which check failed."""
    return HubError(400, description, body={"error": error, "error_description": description})


@router.add("POST", "/oauth/token", writes=True, public=True)
async def exchange_token(hub: "Hub", call: Call) -> Response:
    body = await call.json()
    if body.get("grant_type") != GRANT_TYPE or body.get("subject_token_type") != ID_TOKEN_TYPE:
        raise _refused("invalid_request", "Unsupported grant_type or subject_token_type")
    resource = body.get("resource")
    if not isinstance(resource, str) or not resource or not isinstance(body.get("subject_token"), str):
        raise _refused("invalid_request", "subject_token and resource are required")
    try:
        claims = verify(hub, body["subject_token"])
    except ValueError:
        claims = {}
    token = _token_for(hub, resource, claims) if claims.get("aud") in (hub.url, call.base_url) else None
    if token is None:
        raise _refused("invalid_grant", "The identity token cannot be exchanged for this resource")
    hub.records.save(token)
    return JSONResponse(
        {
            "access_token": token.value,
            "issued_token_type": ACCESS_TOKEN_TYPE,
            "token_type": "bearer",
            "expires_in": int(hub.settings.publisher_token_lifetime),
        }
    )


def _token_for(hub: "Hub", resource: str, claims: dict[str, Any]) -> Token | None:
    """A repository's publisher gives a write token for it; a user's, one that only reads gated repositories."""
    expires = time.time() + hub.settings.publisher_token_lifetime
    if "/" not in resource:
        user = hub.records.get(User, resource)
        if user is None or not any(_match(claims, publisher) for publisher in user.publishers):
            return None
        value = f"hf_oauth_{secrets.token_hex(24)}"
        return Token(value, user.name, "read", "CI/CD access", resource=GATED_REPOS, expires=expires)
    prefix, _, rest = resource.partition("/")
    repo = hub.repo(prefix.removesuffix("s"), rest) if prefix in ("datasets", "spaces") else hub.repo("model", resource)
    publisher = next((publisher for publisher in repo.publishers if _match(claims, publisher)), None) if repo else None
    if repo is None or publisher is None:
        return None
    if hub.records.get(User, OIDC_USER) is None:
        hub.records.save(User(OIDC_USER, "Trusted publisher"))
    value = f"hf_jwt_{secrets.token_hex(24)}"
    role: TokenRole = "read" if publisher["read_only"] else "write"
    return Token(value, OIDC_USER, role, "trusted publisher", resource=repo.key, expires=expires)


def _match(claims: dict[str, Any], publisher: dict[str, Any]) -> bool:
    """Claims are compared exactly. `branch` and `workflow` (a file name) are read out of GitHub's longer ones."""
    short = {
        "branch": str(claims.get("ref", "")).removeprefix("refs/heads/"),
        "workflow": str(claims.get("workflow_ref", "")).partition("@")[0].rpartition("/")[2],
    }
    return all(short.get(name, claims.get(name)) == wanted for name, wanted in publisher["claims"].items())


@router.add("GET", "/_github/id-token", public=True)
async def github_id_token(hub: "Hub", call: Call) -> Response:
    """GitHub's side: the runner's request token names the job's claims, the answer is an identity token."""
    request_token = call.headers.get("authorization", "").partition(" ")[2]
    try:
        claims = verify(hub, request_token)["job"]
    except (ValueError, KeyError) as error:
        raise HubError(401, "Unauthorized") from error
    claims |= {"aud": call.text("audience") or "", "iat": int(time.time()), "exp": time.time() + ID_TOKEN_LIFETIME}
    return JSONResponse({"count": 1, "value": mint(hub, claims)})
