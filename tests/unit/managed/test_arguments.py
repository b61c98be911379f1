"""Wrong arguments of managed_files, as the controller refuses them before it connects to a host."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from action_plugins.managed_files import check_arguments
from library.managed_files import ARGUMENT_SPEC


def complaint(args: dict[str, Any]) -> str:
    result = ArgumentSpecValidator(ARGUMENT_SPEC).validate({"role": "demo", **args})
    if result.error_messages:
        return result.error_messages[0]
    try:
        check_arguments(result.validated_parameters)
    except AnsibleActionFail as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "files is required"),
        ({"files": [{"path": "/x", "content": "", "owners": "me"}]}, "owners"),
        ({"files": [{"path": "/x"}]}, "one of the following is required: template, content, source"),
        ({"files": [{"path": "/x", "content": "", "source": "y"}]}, "mutually exclusive"),
        ({"files": [], "settled": ["x"]}, "settled stands alone"),
        ({"settled": [], "absent": ["/x"]}, "settled stands alone"),
        ({"files": [{"path": "/x", "content": "", "mode": 0o644}]}, "is to be octal and quoted"),
        ({"files": [{"path": "/x", "content": "", "mode": "u=rw"}]}, "is to be octal and quoted"),
        ({"files": [], "directories": [{"path": "/x", "mode": 0o1777}]}, "is to be octal and quoted"),
        ({"files": [{"path": "x/../y", "content": ""}]}, "absolute path"),
        ({"files": [], "directories": [{"path": "/x/"}]}, "absolute path"),
        ({"files": [{"path": "/x", "content": ""}], "absent": ["/x"]}, "given more than once: /x"),
        ({"files": [{"path": "/x", "content": "", "effects": ["start:x"]}]}, "effect 'start:x' of /x"),
        ({"files": [{"path": "/x", "content": "", "effects": ["two words"]}]}, "effect 'two words' of /x"),
        ({"files": [{"path": "/x", "content": "", "validate": "true"}]}, "does not contain %s"),
        ({"files": [], "validate": [{"tree": "/x", "command": "true"}]}, "does not contain %s"),
        ({"files": [], "absent": [{"path": "/x", "effect": []}]}, "absent takes paths"),
        ({"files": [], "absent": [{"path": "/x", "effects": "word"}]}, "list of strings"),
        ({"files": [], "role": "a/b"}, "is not a name for a ledger"),
        ({"files": [], "local_edits": "merge"}, "local_edits"),
    ],
)
def test_wrong(args: dict[str, Any], words: str) -> None:
    assert words in complaint(args)


@pytest.mark.parametrize(
    "args",
    [
        {"files": []},
        {"settled": ["restart:x.service"]},
        {"files": [{"path": "/x", "content": "", "effects": ["restart:x@y.service", "word"]}], "absent": ["/y"]},
        {"files": [], "absent": [{"path": "/x", "effects": ["reload:x.service"]}]},
    ],
)
def test_right(args: dict[str, Any]) -> None:
    assert complaint(args) == ""
