"""How the Hub refuses: a status, an optional `X-Error-Code`, and a message, as one exception per refusal."""

from xml.sax.saxutils import escape

from starlette.responses import JSONResponse, Response

NO_SUCH_REPO_ANONYMOUS = "Invalid username or password."
NO_SUCH_REPO = "Repository not found"
BAD_CREDENTIALS = "Invalid credentials in Authorization header"
DISABLED = "Access to this resource is disabled."
READ_TOKEN = "Forbidden: you must use a write token to upload to a repository."
NEEDS_PULL_REQUEST = "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request"
BRANCH_MOVED = "The branch was updated since you opened this page. Please refresh and try again."
NO_SUCH_FILE_TO_DELETE = "A file with this name doesn't exist"
MISSING_LFS_OBJECT = "Your push was rejected because an LFS pointer pointed to a file that does not exist."


class HubError(Exception):
    """A refusal of the Hub, answered as JSON `{"error": message}` with the headers that the client reads."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        *,
        headers: dict[str, str] | None = None,
        body: dict[str, object] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}
        self.body = body

    def response(self) -> Response:
        text = self.message.replace("\n", " ").encode("latin-1", "replace").decode("latin-1")
        headers = {"X-Error-Message": text, **self.headers}
        if self.code is not None:
            headers["X-Error-Code"] = self.code
        return JSONResponse(self.body or {"error": self.message}, self.status, headers)


class StorageError(HubError):
    """A refusal of the object storage, which answers XML and knows nothing of the Hub's error codes."""

    def response(self) -> Response:
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{escape(self.code or 'Error')}</Code><Message>{escape(self.message)}</Message></Error>"
        )
        return Response(body, self.status, self.headers, media_type="application/xml")


class MovedError(HubError):
    """The repository has another name now: 307 with the same request on the new path."""

    def __init__(self, location: str):
        super().__init__(307, f"Temporary Redirect. Redirecting to {location}", headers={"Location": location})

    def response(self) -> Response:
        return Response(self.message, 307, self.headers, media_type="text/plain")


def repo_not_found(authenticated: bool) -> HubError:
    if authenticated:
        return HubError(404, NO_SUCH_REPO, "RepoNotFound")
    return HubError(401, NO_SUCH_REPO_ANONYMOUS, "RepoNotFound")


def revision_not_found(revision: str) -> HubError:
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(commit: str, message: str = "Entry not found") -> HubError:
    return HubError(404, message, "EntryNotFound", headers={"X-Repo-Commit": commit})


def bad_request(message: str) -> HubError:
    return HubError(400, message)


def forbidden(message: str) -> HubError:
    return HubError(403, message)
