"""The paths the server answers on.

``POST /webhooks/hub``: 202 with the job's id once it is on record (``new``: false if it was there before), 200 with the
reason if there is nothing to do; 401 without the secret, 413 for a body that is too large, 400 for one that is no JSON,
422 for one that is no delivery.
``GET /healthz``: 200 while the process answers.
``GET /jobs``: the latest jobs and what became of them.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from modelexport_bot import __version__
from modelexport_bot.credentials import Token
from modelexport_bot.server import comment, push
from modelexport_bot.server.log import logger
from modelexport_bot.server.router import Desk, Router
from modelexport_bot.server.webhook import LARGEST_BODY, SECRET_HEADER, Delivery, authentic

ROUTER = Router(push.router, comment.router)


def create(secret: Token, desk: Desk, recent_jobs: Callable[[], list[dict[str, Any]]]) -> FastAPI:
    """The application.

    Args:
        secret: what a delivery must carry.
        desk: takes the jobs.
        recent_jobs: the latest jobs, as JSON; must hold nothing that not everybody may see.
    """
    app = FastAPI(title="modelexport-bot", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/webhooks/hub")
    async def hub(request: Request) -> JSONResponse:
        if not authentic(request.headers.get(SECRET_HEADER), secret):
            raise HTTPException(401, f"{SECRET_HEADER} is missing or wrong.")
        delivery = _parsed(await _body(request))
        answer = await run_in_threadpool(ROUTER.dispatch, delivery, desk)
        about = f"{delivery.event.scope}:{delivery.event.action} on {delivery.repo.name}"
        if answer.job is None:
            logger.debug("%s: %s", about, answer.reason)
            return JSONResponse({"reason": answer.reason})
        logger.info("%s: %s %s", about, answer.job.job, "recorded" if answer.job.new else "known")
        return JSONResponse(asdict(answer.job) | {"reason": answer.reason}, status_code=202)

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get("/jobs")
    def jobs() -> dict[str, Any]:
        return {"jobs": recent_jobs()}

    return app


async def _body(request: Request) -> bytes:
    """The body, read no further than it may be long."""
    declared = request.headers.get("content-length", "")
    body = bytearray()
    if not (declared.isdecimal() and int(declared) > LARGEST_BODY):
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_BODY:
                break
        else:
            return bytes(body)
    raise HTTPException(413, f"A delivery has {LARGEST_BODY} bytes at most.")


def _parsed(body: bytes) -> Delivery:
    try:
        return Delivery.model_validate_json(body)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}".removeprefix(": ") for item in error.errors()]
        malformed = any(item["type"] == "json_invalid" for item in error.errors())
        raise HTTPException(400 if malformed else 422, "; ".join(wrong[:10])) from None
