"""Faults on demand: which request goes wrong, how, and how often. Carried out by `app.py`."""

import re
import uuid
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

Kind = Literal[
    "refuse",
    "reset_before",
    "reset_after",
    "status",
    "timeout",
    "truncate",
    "wrong_bytes",
    "expire_upload_urls",
    "expire_token",
]


@dataclass
class Fault:
    """One thing that goes wrong.

    kind: `refuse` closes the connection unanswered; `reset_before` resets it (RST); `reset_after` applies the request,
        then resets; `status` answers `code` (`when="after"`: applied all the same); `timeout` answers nothing for
        `seconds`, then closes; `truncate` sends half of the body under the full Content-Length; `wrong_bytes` sends
        the right length with flipped bytes; `expire_upload_urls` makes every signed URL given out so far invalid;
        `expire_token` ends the life of the token that came with the request. The last two then go on as usual.
    method, route, path: what the request must match; `path` is a regular expression searched in path and query.
    index: the request's number in the journal, or the first number from which the fault may fire.
    skip: so many matching requests pass unharmed first.
    times: how often it fires; `None` for ever.
    when: `before` or `after` the Hub has applied the request (`status`, `timeout`, `expire_*`).
    """

    kind: Kind
    method: str | None = None
    route: str | None = None
    path: str | None = None
    index: int | None = None
    skip: int = 0
    times: int | None = 1
    code: int = 500
    retry_after: int | None = None
    rate_limit: bool = False
    seconds: float = 30
    when: Literal["before", "after"] = "before"
    message: str | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    fired: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"unknown fault {self.kind!r}: one of {', '.join(get_args(Kind))}")
        if self.path is not None:
            re.compile(self.path)

    def matches(self, index: int, method: str, route: str | None, target: str) -> bool:
        return (
            (self.times is None or self.fired < self.times)
            and (self.index is None or index >= self.index)
            and (self.method is None or method == self.method.upper())
            and (self.route is None or route == self.route)
            and (self.path is None or re.search(self.path, target) is not None)
        )


class Faults:
    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def inject(self, description: dict[str, Any]) -> Fault:
        fault = Fault(**description)
        self.faults.append(fault)
        return fault

    def clear(self) -> None:
        self.faults.clear()

    def due(self, index: int, method: str, route: str | None, target: str) -> Fault | None:
        """The fault that this request suffers, if any; counts it."""
        for fault in self.faults:
            if fault.matches(index, method, route, target):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.fired += 1
                return fault
        return None

    def describe(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self.faults]
