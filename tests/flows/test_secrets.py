"""No secret is in anything that a run writes: ledger, MLflow, artifacts, Prefect's database, logs, the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from mailboxes import Inbox, Mail, listening
from prefect.blocks.core import Block
from prefect.blocks.notifications import SlackWebhook
from prefect.settings import get_current_settings
from scene import QUIET, Scene
from servers import free_port

from flows import blocks
from flows.retrain import retrain
from flows.watch import watch

pytestmark = pytest.mark.usefixtures("prefect_api")

HOOK, MAIL, BASE, ENVIRONMENT = "hookpath-4c1d77", "mailword-9b2e15", "baseword-3f8a60", "envtoken-71d0c4"
BLOCK, BROKEN = "blockpath-5e6f02", "blockpath-b80d31"
SLACK = "T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
SECRETS = (HOOK, MAIL, BASE, ENVIRONMENT, BLOCK, BROKEN, "TIiajkdnlazkcOXrIdevi7FQ")
CONTROL = "a reason that is found again"


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    server = Inbox()
    with listening(server):
        yield server


@pytest.fixture
def mail() -> Iterator[Mail]:
    server = Mail()
    with listening(server):
        yield server


def save(name: str, url: str) -> str:
    """A block of a team, and how a policy names it."""
    SlackWebhook(url=url).save(name, overwrite=True, _sync=True)  # type: ignore[call-arg]
    return f"block:slack-webhook/{name}"


def sinks(inbox: Inbox, mail: Mail) -> list[str]:
    """One of each kind, with its secret in the policy, the environment or a block."""
    hook, gone = f"json://127.0.0.1:{inbox.server_port}", f"json://127.0.0.1:{free_port()}"
    return [
        f"{hook}/{HOOK}",
        f"{gone}/{HOOK}?token={HOOK}",
        f"mailto://ana:{MAIL}@127.0.0.1:{mail.server_port}?smtp=127.0.0.1&mode=insecure&from=b@x.org&to=ml@x.org",
        f"slack://{SLACK}",
        "${SECRET_HOOK}",
        "json://127.0.0.1:9/${SECRET_TOKEN}",
        save("on-call", f"{hook}/{BLOCK}"),
        save("gone", f"{gone}/{BROKEN}"),
        save("misspelt", f"nonsense://{BROKEN}"),
        "block:slack-webhook/nobody-made-it",
    ]


def written(home: Path) -> dict[str, bytes]:
    """Every byte of every file that was written, by what it is."""
    found = {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file() and path.suffix != ".variant"}
    secret = get_current_settings().server.database.connection_url
    assert secret is not None
    prefects = Path(secret.get_secret_value().partition("///")[2])
    return found | {str(path): path.read_bytes() for path in prefects.parent.rglob("*") if path.is_file()}


def holding(text: str, files: dict[str, bytes]) -> set[str]:
    """Names of the files that hold a text, plain or as it stands in an address."""
    forms = {text.encode(), quote(text).encode()}
    return {Path(name).name for name, content in files.items() if any(form in content for form in forms)}


@pytest.mark.slow  # three runs
def test_no_secret_is_in_anything_that_was_written(
    first: Scene,
    inbox: Inbox,
    mail: Mail,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("apprise.plugins.slack.NotifySlack.webhook_url", f"http://127.0.0.1:{inbox.server_port}")
    monkeypatch.setenv("SECRET_HOOK", f"json://ana:{ENVIRONMENT}@127.0.0.1:{inbox.server_port}/")
    monkeypatch.setenv("SECRET_TOKEN", ENVIRONMENT)
    told = sinks(inbox, mail)
    caplog.set_level(logging.DEBUG)  # from here on: a block's address is logged where a team makes it
    judged = first.run(retrain, QUIET, policy=first.policy("told", notify=told), force=True, reason=CONTROL)
    assert judged.report.decision in {"waiting", "gate-failed", "promoted"}
    database = f"postgresql://reader:{BASE}@127.0.0.1:{free_port()}/shop"
    away = first.policy("away", notify=told, data={"source": database, "table": "customers"})
    assert first.run(retrain, QUIET + 1, policy=away, force=True, reason=CONTROL).error is not None
    first.run(watch, QUIET + 1, policy=first.policy("told", notify=told))

    # What is sent goes where it should, with its secret, or this test would prove nothing.
    assert {f"/{HOOK}", f"/{SLACK}", "/", f"/{BLOCK}"} <= set(inbox.paths)
    assert f"ana\0{MAIL}" in mail.logins
    files = written(first.home)
    assert {"ledger.db", "prefect-test.db"} <= {name.removesuffix("-wal") for name in holding(CONTROL, files)}
    assert {"block:slack-webhook/on-call", "block:slack-webhook/gone"} <= undelivered_or_not(first)
    shown = f"{caplog.text}\n{''.join(capfd.readouterr())}"
    for one in SECRETS:
        assert holding(one, files) == set(), one
        assert one not in shown, one


def undelivered_or_not(scene: Scene) -> set[str]:
    """Sinks, as the ledger shows them."""
    with scene.case(0).ledger as ledger:
        return {one.sink for one in ledger.notifications("churn")}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("slack-webhook/nobody-made-it", "cannot be loaded"),
        ("slack-webhook/gone", "could not deliver"),
        ("secret/a-word", "cannot notify; choose a notification"),
    ],
)
def test_a_block_that_does_not_tell_says_why_and_keeps_its_address(name: str, part: str) -> None:
    save("gone", f"json://127.0.0.1:{free_port()}/{BROKEN}")
    Block.get_block_class_from_key("secret")(value=BROKEN).save("a-word", overwrite=True, _sync=True)
    with pytest.raises((LookupError, ValueError, ConnectionError), match=part) as told:
        blocks.tell(name, "churn: promoted", "body")
    assert name in str(told.value)
    assert BROKEN not in str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__ or told.value.__context__ is None
