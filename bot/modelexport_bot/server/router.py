"""From an event to the behaviours that care about it. Each behaviour is a module with a router of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from modelexport_bot.server.webhook import Delivery


@dataclass(frozen=True)
class Submitted:
    """A job on record. ``new`` is False when it was there before."""

    job: str
    new: bool


class Desk(Protocol):
    """Where behaviours hand in jobs."""

    def export(self, repo: str, sha: str, *, private: bool) -> Submitted:
        """Record a run on a repo durably, once for each commit."""

    def reply(self, repo: str, num: int, comment: str, *, private: bool) -> Submitted:
        """Record the answering of a thread durably, once for each comment."""


@dataclass(frozen=True)
class Answer:
    """What came of a delivery: a job, or the reason why there is none."""

    reason: str
    job: Submitted | None = None


Behaviour = Callable[[Delivery, Desk], Answer]


class Router:
    """Behaviours by scope and action of the event."""

    def __init__(self, *others: "Router") -> None:
        self._behaviours: dict[tuple[str, str], Behaviour] = {}
        for other in others:
            self._behaviours |= other._behaviours  # noqa: SLF001

    def on(self, scope: str, action: str) -> Callable[[Behaviour], Behaviour]:
        """Registers the decorated function for such events."""

        def register(behaviour: Behaviour) -> Behaviour:
            self._behaviours[scope, action] = behaviour
            return behaviour

        return register

    def dispatch(self, delivery: Delivery, desk: Desk) -> Answer:
        """Lets the behaviour for this event act on it."""
        event = delivery.event
        behaviour = self._behaviours.get((event.scope, event.action))
        if behaviour is None:
            return Answer(f"Nothing to do on {event.scope}:{event.action}.")
        return behaviour(delivery, desk)
