"""Controller's half of managed_files: check the arguments, render, and send everything to the host as one bundle."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import zlib
from collections.abc import Mapping
from typing import Any

from ansible._internal._templating import _template_vars
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.text.converters import to_bytes
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

LOCAL_EDITS = ("stop", "keep", "overwrite")
# The leading zero tells a string from a number that YAML has already read as octal.
MODE = re.compile(r"0[0-7]{3,4}")
ROLE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
EFFECT = re.compile(r"[^\s:]+(:\S+)?")


def check_path(path: str, what: str) -> str:
    if not os.path.isabs(path) or os.path.normpath(path) != path:
        raise AnsibleActionFail(
            f"managed_files: {what} {path!r} is to be an absolute path without '..', doubled or trailing slashes"
        )
    return path


def check_effects(effects: list[str], what: str) -> list[str]:
    for effect in effects:
        if not EFFECT.fullmatch(effect) or (":" in effect and effect.split(":")[0] not in ("restart", "reload")):
            raise AnsibleActionFail(
                f"managed_files: effect {effect!r} of {what} is to be restart:UNIT, reload:UNIT or a word"
            )
    return effects


def check_absent(item: Any) -> dict[str, Any]:
    entry = {"path": item} if isinstance(item, str) else item
    if (
        not isinstance(entry, Mapping)
        or not set(entry) <= {"path", "effects"}
        or not isinstance(entry.get("path"), str)
    ):
        raise AnsibleActionFail(f"managed_files: absent takes paths, or dictionaries of path and effects, not {item!r}")
    effects = entry.get("effects") or []
    if not isinstance(effects, list) or not all(isinstance(effect, str) for effect in effects):
        raise AnsibleActionFail(f"managed_files: effects of {entry['path']} are to be a list of strings")
    return {"path": check_path(entry["path"], "absent"), "effects": check_effects(effects, entry["path"])}


def check_arguments(args: Mapping[str, Any]) -> None:
    """What the types cannot say."""
    if not ROLE.fullmatch(args["role"]):
        raise AnsibleActionFail(f"managed_files: role {args['role']!r} is not a name for a ledger")
    if args["settled"] is not None and (
        args["files"] is not None or args["absent"] or args["directories"] or args["validate"]
    ):
        raise AnsibleActionFail("managed_files: settled stands alone, without files, directories, absent or validate")
    if args["settled"] is None and args["files"] is None:
        raise AnsibleActionFail("managed_files: files is required ([] removes every file of the role), or settled")
    for item in args["files"] or []:
        check_path(item["path"], "files")
        check_effects(item["effects"], item["path"])
        if item["validate"] and "%s" not in item["validate"]:
            raise AnsibleActionFail(f"managed_files: validate of {item['path']} does not contain %s")
    for item in args["directories"]:
        check_path(item["path"], "directories")
    for item in (*(args["files"] or []), *args["directories"]):
        if not MODE.fullmatch(item["mode"]):
            raise AnsibleActionFail(
                f'managed_files: mode {item["mode"]!r} of {item["path"]} is to be octal and quoted, as in "0644"'
            )
    for item in args["validate"]:
        check_path(item["tree"], "validate")
        if "%s" not in item["command"]:
            raise AnsibleActionFail(f"managed_files: the validator of {item['tree']} does not contain %s")
    paths = [item["path"] for item in (*(args["files"] or []), *args["directories"])] + [
        check_absent(item)["path"] for item in args["absent"]
    ]
    doubled = sorted({path for path in paths if paths.count(path) > 1})
    if doubled:
        raise AnsibleActionFail(f"managed_files: given more than once: {', '.join(doubled)}")


def pack(data: Mapping[str, Any]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(data, sort_keys=True).encode())).decode()


class ActionModule(ActionBase):
    _requires_connection = True
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(self._argument_spec())
        check_arguments(args)
        bundle: dict[str, Any] = {
            "role": args["role"],
            "host": task_vars.get("inventory_hostname", "this host"),
            "state_dir": args["state_dir"],
            "local_edits": self._local_edits(args, task_vars),
            "settled": args["settled"],
        }
        if args["settled"] is None:
            bundle["files"] = [self._file(item, task_vars) for item in args["files"]]
            bundle["directories"] = args["directories"]
            bundle["absent"] = [check_absent(item) for item in args["absent"]]
            bundle["validate"] = args["validate"]
        try:
            return self._execute_module(
                module_name="managed_files", module_args={"bundle": pack(bundle)}, task_vars=task_vars
            )
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)

    def _argument_spec(self) -> dict[str, Any]:
        """The module's own, so that there is one."""
        path = self._shared_loader_obj.module_loader.find_plugin("managed_files")
        spec = importlib.util.spec_from_file_location("managed_files_module", path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.ARGUMENT_SPEC

    def _local_edits(self, args: Mapping[str, Any], task_vars: Mapping[str, Any]) -> str:
        choice = args["local_edits"] or self._templar.template(task_vars.get("local_edits")) or "stop"
        if choice not in LOCAL_EDITS:
            raise AnsibleActionFail(
                f"local_edits is {choice!r}, and can be {', '.join(LOCAL_EDITS[:-1])} or {LOCAL_EDITS[-1]}"
            )
        return choice

    def _file(self, item: Mapping[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        keys = ("path", "owner", "group", "mode", "sensitive", "validate", "effects", "variable")
        return {
            **{key: item[key] for key in keys},
            "content": base64.b64encode(self._content(item, task_vars)).decode(),
        }

    def _content(self, item: Mapping[str, Any], task_vars: dict[str, Any]) -> bytes:
        try:
            if item["template"] is not None:
                return self._render(item, task_vars)
            if item["source"] is not None:
                return self._read(item["source"])
        except AnsibleActionFail:
            raise
        except AnsibleError as error:
            raise AnsibleActionFail(f"{item['path']}: {error}") from error
        return to_bytes(item["content"])

    def _read(self, source: str) -> bytes:
        real = self._loader.get_real_file(self._find_needle("files", source))
        try:
            with open(real, "rb") as handle:
                return handle.read()
        finally:
            self._loader.cleanup_tmp_file(real)

    def _render(self, item: Mapping[str, Any], task_vars: dict[str, Any]) -> bytes:
        """As ansible.builtin.template does, with its defaults."""
        source = self._find_needle("templates", item["template"])
        text = trust_as_template(self._loader.get_text_file_contents(source))
        roots = [*task_vars.get("ansible_search_path", []), self._loader.get_basedir(), os.path.dirname(source)]
        variables = {**task_vars, **item["vars"]}
        variables.update(
            _template_vars.generate_ansible_template_vars(
                path=item["template"],
                fullpath=source,
                dest_path=item["path"],
                include_ansible_managed="ansible_managed" not in variables,
            )
        )
        templar = self._templar.copy_with_new_env(
            searchpath=[place for root in roots for place in (os.path.join(root, "templates"), root)],
            available_variables=variables,
        )
        rendered = templar.template(
            text,
            escape_backslashes=False,
            overrides={"trim_blocks": True, "lstrip_blocks": False, "newline_sequence": "\n"},
        )
        return b"" if rendered is None else to_bytes(rendered)
