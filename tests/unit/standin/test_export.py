"""The commands that read everything: of one message, and of the whole realm."""

import hashlib
import json
import tarfile
from datetime import datetime
from io import StringIO
from pathlib import Path

import pytest
import yaml
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import override_settings
from zerver.lib import actions
from zerver.lib.narrow import recipient_for
from zerver.lib.uploads import local_path, store_upload
from zerver.models import Message

PROFILES = Path(__file__).resolve().parents[3] / "playbooks/profiles"


def load(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.fixture
def uploads(tmp_path):
    with override_settings(LOCAL_UPLOADS_DIR=str(tmp_path / "home")):
        yield tmp_path


@pytest.fixture
def told(people, uploads):
    """A realm in which something was said, with a file."""
    ann, ben, stream = people
    file = store_upload(ann, SimpleUploadedFile("a plan.txt", b"the plan"))
    first = actions.send_message(ann, recipient_for(stream=stream), f"[plan](/user_uploads/{file.path_id})", topic="t")
    second = actions.send_message(ben, recipient_for(users=[ann, ben]), "größer 💬")
    return file, first, second


def export(directory: Path) -> tuple[str, str]:
    out, errors = StringIO(), StringIO()
    call_command("export", f"--output={directory}", "--realm=", stdout=out, stderr=errors)
    return out.getvalue(), errors.getvalue()


def test_everything_is_in_the_archive(told, uploads):
    file, first, second = told
    out, errors = export(uploads / "to" / "export")
    assert (out, errors) == (f"Exported to {uploads}/to/export.tar.gz\n", "")
    with tarfile.open(uploads / "to/export.tar.gz") as tar:
        tar.extractall(uploads / "unpacked", filter="data")
    found = uploads / "unpacked/export"
    realm = load(found / "realm.json")
    assert [row["name"] for row in realm["zerver_realm"]] == ["Test"]
    assert [row["email"] for row in realm["zerver_userprofile"]] == ["ann@example.com", "ben@example.com"]
    assert [row["name"] for row in realm["zerver_stream"]] == ["general"]
    assert len(realm["zerver_recipient"]) == 2
    messages = load(found / "messages-000001.json")
    assert [(row["id"], row["subject"]) for row in messages["zerver_message"]] == [(first.id, "t"), (second.id, "")]
    assert messages["zerver_message"][1]["content"] == "größer 💬"
    assert len(messages["zerver_usermessage"]) == 4
    attachments = load(found / "attachment.json")
    assert attachments["zerver_attachment_messages"] == [{"attachment_id": file.id, "message_id": first.id}]
    assert (found / "uploads" / file.path_id).read_bytes() == b"the plan"


def test_no_password_and_no_key_is_in_it(told, uploads):
    export(uploads / "export")
    people = load(uploads / "export/realm.json")["zerver_userprofile"]
    assert not any({"password", "api_key"} & set(row) for row in people)


def test_many_messages_are_in_many_files(told, uploads, monkeypatch):
    monkeypatch.setattr("zerver.lib.export.MESSAGES_PER_FILE", 1)
    export(uploads / "export")
    files = sorted(path.name for path in (uploads / "export").glob("messages-*.json"))
    assert files == ["messages-000001.json", "messages-000002.json"]


def test_a_missing_file_is_told(told, uploads):
    local_path(told[0].path_id).unlink()
    assert told[0].path_id in export(uploads / "export")[1]


@pytest.mark.parametrize("there", ["export/old", "export.tar.gz"])
def test_nothing_is_overwritten(people, uploads, there):
    (uploads / there).parent.mkdir(exist_ok=True)
    (uploads / there).write_text("old")
    with pytest.raises(CommandError, match="is not empty|is there already"):
        export(uploads / "export")
    assert (uploads / there).read_text() == "old"


@pytest.mark.parametrize("profile", ["zulip", "standin"])
class TestReadMessage:
    """The contract's command, its program run against the stand-in's models, which are named as Zulip's."""

    def read(self, profile: str, capsys) -> dict:
        argv = yaml.safe_load((PROFILES / f"{profile}.yml").read_text())["app_contract"]["commands"]["read_message"]
        call_command(*argv[2:4], argv[4], argv[5])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1
        return json.loads(lines[0])

    def test_the_newest(self, profile, told, capsys):
        found = self.read(profile, capsys)
        sent = datetime.fromisoformat(found.pop("sent"))
        newest = Message.objects.get(id=told[2].id)
        assert sent == newest.date_sent
        assert sent.tzinfo
        digest = hashlib.sha256("größer 💬".encode()).hexdigest()
        assert found == {"messages": 2, "id": newest.id, "sha256": digest}

    def test_none(self, profile, people, capsys):
        assert self.read(profile, capsys) == {"messages": 0, "id": None, "sha256": None, "sent": None}
