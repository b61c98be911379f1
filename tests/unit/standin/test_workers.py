"""Queue workers, schedulers and commands."""

import threading
from datetime import timedelta
from io import StringIO

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import override_settings
from django.utils.timezone import now
from zerver.lib import actions
from zerver.lib.narrow import recipient_for
from zerver.lib.scheduler import deliver_scheduled_email, deliver_scheduled_message
from zerver.models import (
    Attachment,
    Message,
    RealmCount,
    Role,
    ScheduledEmail,
    ScheduledMessage,
    UserActivity,
    UserMessage,
    UserProfile,
)
from zerver.workers.base import QueueWorker
from zerver.workers.queues import WORKERS


@pytest.fixture(autouse=True)
def _keep_the_connection(monkeypatch):
    """A database in memory ends with its connection."""
    monkeypatch.setattr("zerver.workers.base.close_old_connections", lambda: None)
    monkeypatch.setattr("zerver.workers.base.connection.close", lambda: None)


def work(queue: str, **event) -> None:
    WORKERS[queue](threading.Event()).handle(event)


def send(people, content="hello", **fields) -> Message:
    ann, ben, stream = people
    recipient = recipient_for(users=[ann, ben]) if fields.get("direct") else recipient_for(stream=stream)
    return actions.send_message(ann, recipient, content, topic="t")


class Stubborn(QueueWorker):
    queue = "stubborn"

    def __init__(self, stop, errors) -> None:
        super().__init__(stop)
        self.errors, self.done = errors, []

    def work(self, event) -> None:
        if self.errors:
            raise self.errors.pop()
        self.done.append(event)


class NoWait(threading.Event):
    def wait(self, timeout=None) -> bool:
        return self.is_set()


def test_an_event_waits_for_the_database():
    worker = Stubborn(NoWait(), [OperationalError("gone"), ConnectionRefusedError()])
    worker.handle({"a": 1})
    assert worker.done == [{"a": 1}]


def test_an_event_is_not_dropped_when_the_worker_is_stopped():
    stop = NoWait()
    stop.set()
    with pytest.raises(ConnectionAbortedError):
        Stubborn(stop, [OperationalError("gone")]).handle({"a": 1})


def test_an_impossible_event_is_kept_aside(tmp_path):
    with override_settings(LOG_DIR=str(tmp_path)):
        Stubborn(NoWait(), [ValueError("never")]).handle({"a": 1})
    assert (tmp_path / "queue_error" / "stubborn.errors").read_text() == '{"a": 1}\n'


def test_user_activity(people):
    for second in (10, 20):
        work("user_activity", user_id=people[0].id, client="test", query="get_messages", time=second)
    row = UserActivity.objects.get()
    assert (row.count, row.last_visit.timestamp()) == (2, 20)


def test_email_senders(people):
    work("email_senders", to=["x@example.com"], subject="S", body="B")
    assert [(m.to, m.subject) for m in mail.outbox] == [(["x@example.com"], "S")]


def test_messages_of_a_left_channel_become_read(people):
    send(people)
    work("deferred_work", type="mark_stream_messages_as_read", user_id=people[1].id, stream_ids=[people[2].id])
    assert UserMessage.objects.get(user=people[1]).flags == UserMessage.READ


def test_embed_links_once(people, published):
    message = send(people, "see https://example.com/x")
    assert ("embed_links", {"message_id": message.id}) in published
    for _ in range(2):
        work("embed_links", message_id=message.id)
    message.refresh_from_db()
    assert message.rendered_content.count("message_embed") == 1


def test_missed_message_mail_is_sent_unless_read(people):
    read, unread = send(people, "one", direct=True), send(people, "two", direct=True)
    with override_settings(MISSED_MESSAGE_EMAIL_DELAY_SECS=0):
        for message in (read, unread, unread):
            work("missedmessage_emails", user_id=people[1].id, message_id=message.id)
    actions.update_flags(people[1], [read.id], "add", "read")
    while deliver_scheduled_email():
        pass
    assert [m.body for m in mail.outbox] == ["two"]
    assert not ScheduledEmail.objects.exists()


def test_scheduled_messages_go_out_once_and_in_time(people):
    ann, _, stream = people
    due = {"sender": ann, "recipient": recipient_for(stream=stream), "subject": "t"}
    early = ScheduledMessage.objects.create(**due, content="now", scheduled_timestamp=now() - timedelta(seconds=1))
    ScheduledMessage.objects.create(**due, content="later", scheduled_timestamp=now() + timedelta(hours=1))
    assert [deliver_scheduled_message() for _ in range(3)] == [True, False, False]
    assert [m.content for m in Message.objects.all()] == ["now"]
    early.refresh_from_db()
    assert early.delivered_message_id is not None


def test_a_scheduled_message_that_cannot_be_sent_does_not_block(people):
    ann, _, stream = people
    due = {"sender": ann, "recipient": recipient_for(stream=stream), "scheduled_timestamp": now()}
    ScheduledMessage.objects.create(**due, content=" ")
    ScheduledMessage.objects.create(**due, content="good")
    assert [deliver_scheduled_message() for _ in range(3)] == [True, True, False]
    assert [m.content for m in Message.objects.all()] == ["good"]


def run(*arguments, **options) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, **options)
    return out.getvalue()


def test_accounts_by_command(database, tmp_path, monkeypatch):
    password = tmp_path / "password"
    password.write_text("secret word\n")
    run("create_realm", "Test", "Owner@Example.com", "--password-file", str(password))
    with pytest.raises(CommandError, match="only one"):
        run("create_realm", "Test", "owner@example.com", "--password-file", str(password))
    assert "exists" in run("create_realm", "Test", "owner@example.com", "--if-missing")
    monkeypatch.setenv("ZULIP_PASSWORD", "other word")
    run("create_user", "u@example.com", "User")
    assert "exists" in run("create_user", "U@example.com", "User", "--if-missing")
    with pytest.raises(CommandError, match="exists"):
        run("create_user", "u@example.com", "User")
    assert UserProfile.objects.get(email="owner@example.com").check_password("secret word")
    assert UserProfile.objects.get(email="u@example.com").check_password("other word")
    run("change_user_role", "u@example.com", "admin")
    assert UserProfile.objects.get(email="u@example.com").role == Role.ADMIN
    assert "already" in run("change_user_role", "u@example.com", "admin")
    assert run("show_admins").count("\n") == 2
    assert '"role": "owner"' in run("list_users", "--json")
    assert UserProfile.objects.get(email="u@example.com").api_key in run("get_api_key", "u@example.com")
    with pytest.raises(CommandError, match="no user"):
        run("get_api_key", "nobody@example.com")


def test_passwords_are_required(database, monkeypatch):
    monkeypatch.delenv("ZULIP_PASSWORD", raising=False)
    with pytest.raises(CommandError, match="no password"):
        run("create_realm", "Test", "owner@example.com")
    assert not UserProfile.objects.exists()


def test_analytics_can_be_repeated(people):
    for _ in range(2):
        run("update_analytics_counts")
    assert RealmCount.objects.count() == 3


def test_old_unclaimed_attachments(people, tmp_path):
    ann = people[0]
    rows = {
        name: Attachment.objects.create(realm=ann.realm, owner=ann, file_name=name, path_id=f"1/{name}", size=1)
        for name in ("old", "claimed", "young")
    }
    Attachment.objects.exclude(file_name="young").update(create_time=now() - timedelta(weeks=6))
    rows["claimed"].messages.add(send(people))
    (tmp_path / "files" / "1").mkdir(parents=True)
    (tmp_path / "files" / "1" / "old").write_text("x")
    with override_settings(LOCAL_UPLOADS_DIR=str(tmp_path)):
        assert "Would delete 1/old" in run("delete_old_unclaimed_attachments")
        assert Attachment.objects.count() == 3
        run("delete_old_unclaimed_attachments", "-f")
    assert sorted(Attachment.objects.values_list("file_name", flat=True)) == ["claimed", "young"]
    assert not (tmp_path / "files" / "1" / "old").exists()


def test_checkconfig(database):
    with override_settings(AVATAR_SALT="x", RABBITMQ_PASSWORD="x"):
        run("checkconfig")
    with override_settings(AVATAR_SALT=""), pytest.raises(CommandError, match="AVATAR_SALT"):
        run("checkconfig")


def test_unknown_queue(database):
    with pytest.raises(CommandError, match="No such queue: nope"):
        run("process_queue", "--queue_name", "nope")
    assert run("process_queue", "--list").split() == sorted(WORKERS)
