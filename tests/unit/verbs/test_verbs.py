"""Filters of the verbs: what was typed, what may be shown of it, who is active, what is refused."""

from __future__ import annotations

import pytest
from ansible import context
from ansible.errors import AnsibleFilterError
from ansible.utils.context_objects import CLIArgs

from filter_plugins import verbs


def options(monkeypatch, *extra_vars):
    monkeypatch.setattr(context, "CLIARGS", CLIArgs({"extra_vars": extra_vars}))


@pytest.mark.parametrize(
    ("typed", "templated", "expected"),
    [
        # The shell took the quotes away; Ansible would keep the first word.
        (
            "command=change_user_role -r x --to=y a@b owner",
            "change_user_role",
            "change_user_role -r x --to=y a@b owner",
        ),
        ("command='list_realms --all'", "list_realms --all", "list_realms --all"),
        ('{"command": "list_realms"}', "list_realms", "list_realms"),
        ("other=1", "  from the environment ", "from the environment"),
        ("commands=1", "", ""),
    ],
)
def test_a_command_is_taken_as_it_was_typed(monkeypatch, typed, templated, expected):
    options(monkeypatch, "a=b", typed)
    assert verbs.typed_command(templated) == expected


def test_the_last_of_several_wins(monkeypatch):
    options(monkeypatch, "command=first one", "command=second one")
    assert verbs.typed_command("second") == "second one"


def test_without_a_command_line_the_variable_counts(monkeypatch):
    monkeypatch.setattr(context, "CLIARGS", CLIArgs({}))
    assert verbs.typed_command("list_realms") == "list_realms"


def test_words():
    assert verbs.command_words("shell -c 'print(1)'") == ["shell", "-c", "print(1)"]
    assert verbs.command_words("./manage.py list_realms") == ["list_realms"]


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("", "say what to run"),
        ("  ", "say what"),
        ("manage.py", "say what"),
        ("--all x", "--all"),
        ("a 'b", "quotation"),
    ],
)
def test_what_is_no_command_is_refused_in_one_line(command, part):
    problem = verbs.command_problem(command)
    assert part in problem
    assert "\n" not in problem


def test_a_command_is_no_problem():
    assert verbs.command_problem("list_realms --all") == ""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("shell", True),
        ("shell --interface x", True),
        ("shell -c 'print(1)'", False),
        ("shell --command='print(1)'", False),
        ("shell -cprint", False),
        ("shell --help", False),
        ("dbshell", True),
        ("dbshell -- -c 'select 1'", False),
        ("changepassword iago", True),
        ("list_realms", False),
        ("delete_realm -r x", True),
        ("register_server", True),
        ("register_server --agree", False),
    ],
)
def test_commands_that_ask_at_a_terminal(command, expected):
    own = {"delete_realm": [], "register_server": ["--agree"]}
    assert verbs.wants_terminal(verbs.command_words(command), own) is expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a", "--password", "hunter2", "b"], "a --password *** b"),
        (["a", "--api-key=hunter2"], "a --api-key=***"),
        (["a", "SECRET_THING=hunter2"], "a SECRET_THING=***"),
        (["a", "--token", "--other", "b"], "a --token --other b"),
        (["send", "--subject", "two words"], "send --subject 'two words'"),
        (["shell", "-c", "a\nb\x1b"], "shell -c 'a\\nb\\x1b'"),
        (["a", "x@y=z"], "a x@y=z"),
    ],
)
def test_secrets_are_masked_and_a_log_line_stays_one(words, expected):
    assert verbs.masked(words) == expected


def test_output_is_made_readable():
    assert verbs.readable("id\tname  \n\x1b[32mgreen\x1b[0m\x07\r\n\n") == "id      name\ngreen?"
    assert verbs.readable("\n  indented") == "  indented"


def test_the_last_words_of_a_failure():
    assert verbs.last_words({"stderr": "Traceback\n  x\nCommandError: no such user \n"}) == "CommandError: no such user"
    assert verbs.last_words({"stderr": "", "msg": "no such folder"}) == "no such folder"
    assert verbs.last_words({"rc": 3}) == "it ended with status 3"


def test_seconds():
    assert verbs.seconds("0:00:03.149000") == 3.1
    assert verbs.seconds("1:02:03") == 3723
    assert verbs.seconds("2 days, 0:00:01.0") == 172801
    with pytest.raises(AnsibleFilterError):
        verbs.seconds("soon")


def test_the_first_link():
    assert (
        verbs.first_link("Visit:\n\n  \x1b[1;92mhttps://chat.example.com/new/abc\x1b[0m\n")
        == "https://chat.example.com/new/abc"
    )
    assert verbs.first_link("nothing") == ""


ACTIVE, SPARE, SILENT = {"stat": {"exists": True}}, {"stat": {"exists": False}}, {"unreachable": True}


@pytest.mark.parametrize(
    ("answers", "active", "problem"),
    [
        ([ACTIVE, SPARE], ["a1"], ""),
        ([SILENT, ACTIVE], ["a2"], ""),
        ([SPARE, SPARE], [], "no app host is active: see"),
        ([SPARE, SILENT], [], "no app host is active (no answer from a2): see"),
        ([ACTIVE, ACTIVE], ["a1", "a2"], "a1 and a2 both say"),
        ([None, ACTIVE], ["a2"], ""),
    ],
)
def test_who_is_active(answers, active, problem):
    hostvars = {f"a{n}": {"active_lease": answer} if answer else {} for n, answer in enumerate(answers, 1)}
    assert verbs.active_hosts(["a1", "a2"], hostvars) == active
    found = verbs.active_problem(["a1", "a2"], hostvars)
    assert found.startswith(problem)
    assert bool(found) == bool(problem)


GOOD = {
    "name": "Lab",
    "subdomain": "",
    "owner_email": "iago@example.com",
    "owner_name": "Iago",
    "password": "",
    "link": False,
}


@pytest.mark.parametrize(
    "more", [{}, {"subdomain": "two-words3"}, {"password": "x y"}, {"link": True, "name": "", "owner_email": ""}]
)
def test_an_organization_that_can_be(more):
    assert verbs.organization_problem(GOOD | more) == ""


@pytest.mark.parametrize(
    "more",
    [
        {"name": ""},
        {"name": "x" * 41},
        {"name": "-x"},
        {"name": "a\nb"},
        {"subdomain": "ab"},
        {"subdomain": "-abc"},
        {"subdomain": "Abc"},
        {"subdomain": "a'); drop"},
        {"owner_email": ""},
        {"owner_email": "iago"},
        {"owner_email": "-iago@example.com"},
        {"owner_email": "iago@example.com extra"},
        {"owner_name": ""},
        {"password": "a\nb"},
        {"link": True, "subdomain": "A"},
    ],
)
def test_an_organization_that_cannot_be_is_refused_in_one_line(more):
    problem = verbs.organization_problem(GOOD | more)
    assert problem
    assert "\n" not in problem


def test_all_that_is_wrong_is_said_at_once():
    assert verbs.organization_problem({}).count(";") == 2


S3 = {
    "uploads_backend": "local",
    "uploads_s3_bucket": "uploads",
    "uploads_s3_avatar_bucket": "avatars",
    "uploads_s3_endpoint": "",
    "uploads_s3_access_key": False,
    "uploads_s3_secret_key": False,
    "processes": 4,
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"uploads_s3_endpoint": "http://127.0.0.1:9000/"},
        {"uploads_s3_access_key": True, "uploads_s3_secret_key": True},
    ],
)
def test_a_store_that_can_be(more):
    assert verbs.s3_problem(S3 | more, final=False) == ""
    assert verbs.s3_problem(S3 | more | {"uploads_backend": "s3"}, final=True) == ""


@pytest.mark.parametrize(
    ("more", "final", "part"),
    [
        ({"uploads_s3_bucket": ""}, False, "uploads_s3_bucket is empty"),
        ({"uploads_s3_bucket": "A B"}, False, "uploads_s3_bucket cannot be"),
        ({"uploads_s3_avatar_bucket": "uploads"}, False, "a bucket each"),
        ({"uploads_s3_access_key": True}, False, "go together"),
        ({"uploads_s3_endpoint": "s3.example.com"}, False, "uploads_s3_endpoint"),
        ({"processes": "many"}, False, "processes"),
        ({"uploads_backend": "s3"}, False, "final=true"),
        ({}, True, "run site.yml"),
    ],
)
def test_a_store_that_cannot_be_is_refused_in_one_line(more, final, part):
    problem = verbs.s3_problem(S3 | more, final)
    assert part in problem
    assert "\n" not in problem


def test_the_table():
    answer = {"found": {"files": 3, "icons": 0}, "due": {"files": 1, "icons": 0}}
    assert [line.split() for line in verbs.s3_table(answer, "DUE", "due")] == [
        ["KIND", "FILES", "DUE"],
        ["files", "3", "1"],
        ["icons", "0", "0"],
    ]
