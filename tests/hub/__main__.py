"""`python -m tests.hub --root DIR`: start the local Hub; prints one JSON line with its `url` when it listens."""

import argparse
from pathlib import Path

from .server import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hub", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the Hub's state")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--storage-port", type=int, default=0, help="the object storage's own port; 0: any free port")
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input ends")
    arguments = parser.parse_args()
    run(arguments.root, arguments.host, arguments.port, arguments.storage_port, arguments.until_eof)


if __name__ == "__main__":
    main()
