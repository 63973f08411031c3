"""The Hub's request quotas: so many calls per window and user, counted in fixed windows."""

import math
import time
from dataclasses import dataclass

from .errors import HubError


@dataclass
class Window:
    started: float
    used: int = 0


class RateLimits:
    def __init__(self) -> None:
        self.windows: dict[tuple[str, str], Window] = {}

    def clear(self) -> None:
        self.windows.clear()

    def count(self, resource: str, who: str, quota: int, seconds: float) -> dict[str, str]:
        """Count one call and return the headers that tell what is left. Raises `HubError` 429 when nothing is."""
        now = time.time()
        window = self.windows.setdefault((resource, who), Window(now))
        if now - window.started >= seconds:
            window.started, window.used = now, 0
        reset = max(1, math.ceil(window.started + seconds - now))
        if window.used >= quota:
            raise too_many_requests(resource, reset, quota, seconds)
        window.used += 1
        return rate_headers(resource, quota - window.used, reset, quota, seconds)


def rate_headers(resource: str, remaining: int, reset: int, quota: int, seconds: float) -> dict[str, str]:
    return {
        "RateLimit": f'"{resource}";r={remaining};t={reset}',
        "RateLimit-Policy": f'"fixed window";"{resource}";q={quota};w={int(seconds)}',
    }


def too_many_requests(resource: str, reset: int, quota: int = 1000, seconds: float = 300) -> HubError:
    return HubError(
        429,
        f"We had to rate limit you, you hit the quota of {quota} {resource} requests per {int(seconds)} seconds.",
        headers={"Retry-After": str(reset), **rate_headers(resource, 0, reset, quota, seconds)},
    )
