"""The Hub as we use it: few calls, our own types, our own errors.

The only package that knows ``huggingface_hub``; everything else is written against :class:`Hub` and the classes of
``records.py``. From the request upwards:

- ``transport.py``: every HTTP request, with one idea of patience
- ``errors.py``: what the client raises, as one of our errors
- ``connection.py``: how calls are made: with whose token, how often, and what is done when an answer is lost
- ``records.py``: what the Hub tells us
- ``reading.py``: what we ask it
- ``writing.py``: what we change there, in writes that can be repeated
"""

from modelexport_bot.hub.connection import login_token
from modelexport_bot.hub.errors import HeadMovedError
from modelexport_bot.hub.records import Account, Comment, Commit, HubFile, RepoAt, Thread, ThreadHeading
from modelexport_bot.hub.writing import Hub

__all__ = [
    "Account",
    "Comment",
    "Commit",
    "HeadMovedError",
    "Hub",
    "HubFile",
    "RepoAt",
    "Thread",
    "ThreadHeading",
    "login_token",
]
