"""The journal: one entry for every request that reached the Hub or its storage, in order of arrival."""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Entry:
    """`status` is what the Hub decided, `fault` what was done to it instead; `wrote`: the Hub holds something new.

    `authorization` only says whether the header was there. `status` stays `None` while the request runs and when a
    fault closed the connection before the Hub looked at it.
    """

    index: int
    method: str
    path: str
    query: str
    route: str | None
    repo: str | None = None
    user: str | None = None
    authorization: bool = False
    status: int | None = None
    wrote: bool = False
    fault: str | None = None
    time: float = field(default_factory=time.time)
    seconds: float | None = None


class Journal:
    """Entries since the last `clear`, kept in a file as well, one JSON object a line."""

    def __init__(self, path: Path):
        self.entries: list[Entry] = []
        if path.exists():
            for line in path.read_text().splitlines():
                self.entries.append(Entry(**json.loads(line)))
        self.entries.sort(key=lambda entry: entry.index)
        self.last = self.entries[-1].index if self.entries else 0
        self.path = path
        self.file = path.open("a", buffering=1)

    def begin(self, method: str, path: str, query: str, authorization: bool) -> Entry:
        self.last += 1
        entry = Entry(self.last, method, path, query, route=None, authorization=authorization)
        self.entries.append(entry)
        return entry

    def end(self, entry: Entry) -> None:
        entry.seconds = round(time.time() - entry.time, 6)
        self.file.write(json.dumps(asdict(entry)) + "\n")

    def clear(self) -> None:
        self.entries.clear()
        self.last = 0
        self.file.truncate(0)

    def close(self) -> None:
        self.file.close()
