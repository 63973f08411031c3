"""A workflow with ``id-token: write`` needs no secret: the Hub exchanges the job's identity for a short-lived token."""

from dataclasses import replace

import pytest

from modelexport.contract.errors import UnauthorizedError
from tests.bot.world import World

CLAIMS = {"repository": "alice/code", "ref": "refs/heads/main"}


@pytest.fixture
def keyless(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The bot in a workflow that the repo trusts."""
    world.hub.trust_publisher({"repository": "alice/code"}, repo_id=world.repo)
    for name, value in (world.hub.github_job(CLAIMS) | {"GITHUB_ACTIONS": "true"}).items():
        monkeypatch.setenv(name, value)
    world.bot = "[OIDC]"
    return replace(world, settings=replace(world.settings, token=None, keyless=world.repo))


def test_a_trusted_workflow_opens_and_updates_without_a_secret(keyless: World) -> None:
    assert keyless.run().outcome == "created"
    keyless.push_weights("second")
    assert keyless.run().outcome == "updated"
    assert keyless.run().outcome == "unchanged"
    keyless.assert_sound()


def test_the_token_is_exchanged_afresh_after_the_export(keyless: World) -> None:
    keyless.hub.clear_journal()
    keyless.run(before_publishing=keyless.hub.clear_journal)
    assert [entry["route"] for entry in keyless.hub.journal()][:2] == ["github_id_token", "exchange_token"]


def test_a_token_that_expires_in_the_middle_is_exchanged_again(keyless: World) -> None:
    keyless.hub.inject("expire_token", route="commit")
    assert keyless.run().outcome == "created"
    keyless.assert_sound()


def test_a_workflow_that_is_not_trusted_is_a_typed_error(keyless: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in keyless.hub.github_job({"repository": "mallory/code"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UnauthorizedError):
        keyless.run()
