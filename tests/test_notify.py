"""Notifications reach real servers and files; what fails is an answer, never an exception, and never a secret."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailboxes import Inbox, Mail, listening

from tasks.notify import Delivery, expand, mask, send

# apprise imports imghdr for its Slack plugin; Python 3.13 has dropped it, and apprise knows.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

SLACK = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
"""As apprise's own documentation writes it."""
SECRET = "hunter2secret"  # noqa: S105  it must never be seen again


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    server = Inbox()
    with listening(server):
        yield server


@pytest.fixture
def dead_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_web_hook_gets_title_and_body(inbox: Inbox) -> None:
    (delivery,) = send(
        (f"json://127.0.0.1:{inbox.server_port}/hook",), title="rolled back", body="one\n- two", environment={}
    )
    assert delivery == Delivery(sink="json://***", ok=True)
    assert inbox.received[0]["title"] == "rolled back"
    assert inbox.received[0]["message"] == "one\n- two"


def test_an_e_mail_has_the_decision_as_its_subject_and_is_sent_with_the_password() -> None:
    mail = Mail()
    with listening(mail):
        url = f"mailto://ana:${{SMTP_PASSWORD}}@127.0.0.1:{mail.server_port}?smtp=127.0.0.1&mode=insecure&from=b@x.org&to=ml@x.org"
        (delivery,) = send((url,), title="churn: promoted", body="one\ntwo", environment={"SMTP_PASSWORD": SECRET})
    assert delivery == Delivery(sink="mailto://***", ok=True)
    (message,) = mail.received
    assert (message["subject"], message["to"]) == ("churn: promoted", "ml@x.org")
    assert "one" in message.as_string()
    assert mail.logins == [f"ana\0{SECRET}"]


def test_slack_gets_the_decision_first_in_its_own_form(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apprise.plugins.slack.NotifySlack.webhook_url", f"http://127.0.0.1:{inbox.server_port}")
    (delivery,) = send((SLACK,), title="churn: promoted", body="version 2", environment={})
    assert delivery == Delivery(sink="slack://***", ok=True)
    assert inbox.paths == ["/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"]
    told = json.dumps(inbox.received[0])
    assert 0 < told.index("churn: promoted") < told.index("version 2")


def test_a_name_is_taken_from_the_environment_when_the_message_is_sent(inbox: Inbox) -> None:
    environment = {"HOOK_URL": f"json://ana:{SECRET}@127.0.0.1:{inbox.server_port}/"}
    (delivery,) = send(("${HOOK_URL}",), title="t", body="b", environment=environment)
    assert delivery == Delivery(sink="${HOOK_URL}", ok=True)
    assert len(inbox.received) == 1


def test_a_file_gets_one_json_line_each_time(tmp_path: Path) -> None:
    path = tmp_path / "new" / "told.jsonl"
    for title in ("first", "zweite Zeile: ü"):
        assert send((f"file:{path}",), title=title, body="a\nb", environment={})[0].ok
    assert send((f"file://{path}",), title="third", body="c", environment={})[0].ok
    lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
    assert [entry["title"] for entry in lines] == ["first", "zweite Zeile: ü", "third"]
    assert lines[0]["body"] == "a\nb"
    assert lines[0]["at"].endswith("+00:00")


def test_a_failing_sink_stops_nothing_and_everything_is_recorded_in_order(
    inbox: Inbox, dead_port: int, tmp_path: Path
) -> None:
    recorded: list[Delivery] = []
    urls = (f"json://127.0.0.1:{dead_port}", f"file:{tmp_path}/a", "nonsense", f"json://127.0.0.1:{inbox.server_port}")
    deliveries = send(urls, title="t", body="b", record=recorded.append, environment={})
    assert [delivery.ok for delivery in deliveries] == [False, True, False, True]
    assert tuple(recorded) == deliveries
    assert len(inbox.received) == 1


@pytest.mark.parametrize("status", [403, 500])
def test_a_server_that_refuses_is_a_failure(inbox: Inbox, status: int) -> None:
    inbox.status = status
    (delivery,) = send((f"json://127.0.0.1:{inbox.server_port}/{SECRET}",), title="t", body="b", environment={})
    assert not delivery.ok
    assert delivery.error
    assert SECRET not in delivery.error


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("${UNSET_HOOK}", "UNSET_HOOK is not set; set it in the environment"),
        ("json://${UNSET_HOOK}/x", "UNSET_HOOK is not set"),
        ("file:/dev/null/no", "File exists"),
        ("", "is no address that apprise knows"),
        ("slack://x", "is no address that apprise knows"),
    ],
)
def test_a_misconfigured_sink_says_what_is_wrong(url: str, part: str) -> None:
    (delivery,) = send((url,), title="t", body="b", environment={})
    assert not delivery.ok
    assert part in (delivery.error or "")


SECRETIVE = (
    f"slack://{SECRET}",
    f"unknown://{SECRET}@host/{SECRET}",
    f"json://ana:{SECRET}@127.0.0.1:{{port}}/{SECRET}?token={SECRET}",
    f"json://ana:{SECRET[:4]}%20{SECRET[4:]}@127.0.0.1:{{port}}/",
    f"mailto://ana:{SECRET}@127.0.0.1:{{port}}?smtp=127.0.0.1",
    SECRET,
    "${HIDDEN}",
)


@pytest.mark.parametrize("url", SECRETIVE)
def test_no_secret_in_an_answer_or_a_log(
    url: str, dead_port: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    environment = {"HIDDEN": f"json://ana:{SECRET}@127.0.0.1:{dead_port}/{SECRET}"}
    (delivery,) = send((url.replace("{port}", str(dead_port)),), title="t", body="b", environment=environment)
    assert not delivery.ok
    everything = f"{delivery} {caplog.text} {''.join(capfd.readouterr())}"
    assert SECRET not in everything
    assert SECRET[4:] not in everything


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("slack://a/b/c", "slack://***"),
        ("mailto://u:p@host", "mailto://***"),
        ("${SLACK_URL}", "${SLACK_URL}"),
        ("slack://${TOKEN}/x", "slack://***"),
        ("file:/var/log/told.jsonl", "file:/var/log/told.jsonl"),
        ("tokenwithoutscheme", "***"),
        ("a secret://x", "***"),
    ],
)
def test_an_address_is_shown_by_its_scheme_only(url: str, shown: str) -> None:
    assert mask(url) == shown


def test_an_unset_name_is_an_error_that_names_all_of_them() -> None:
    with pytest.raises(ValueError, match="A, B is not set"):
        expand("${A}/${B}/${C}/${A}", {"C": "c"})
    assert expand("x${C}y", {"C": "c"}) == "xcy"


def test_nobody_to_tell_is_no_work() -> None:
    assert send((), title="t", body="b") == ()


def test_the_quiet_path_does_not_import_apprise(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tasks.notify import send\n"
        f"assert send(('file:{tmp_path}/told',), title='t', body='b')[0].ok\n"
        "heavy = {'apprise', 'requests', 'pandas', 'mlflow', 'prefect', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
