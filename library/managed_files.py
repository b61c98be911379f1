#!/usr/bin/python
"""Bring a set of configuration files to a host: validated, as one, and never over a local edit."""

from __future__ import annotations

DOCUMENTATION = r"""
module: managed_files
short_description: Bring a role's configuration files to a host, and notice local edits
description:
  - Renders a set of templates on the controller and brings them to the host in one module execution.
  - Everything is validated before anything is replaced; when a validator refuses, nothing was changed.
  - Keeps a ledger of what it wrote, one for each role. A file that somebody changed on the host since is I(drift),
    see O(local_edits).
  - A file of the ledger that is no longer in O(files) is removed.
  - A file that is there before the first run and differs is replaced; its previous version is kept in
    C(<state_dir>/replaced/).
  - What has to follow a change (a restart, a reload) is I(owed) from before the first file is replaced until it is
    settled, by M(managed_units) or
    by O(settled), so that a run that was killed loses none of it.
  - Links at the path of a file are never followed. A link there counts as a foreign file, or as an edit of ours.
options:
  role:
    description: Name of the ledger. One call for each role and host.
    type: str
    required: true
  files:
    description: The files of the role, all of them. Required unless O(settled) is given.
    type: list
    elements: dict
    suboptions:
      path:
        description: Absolute path on the host. Missing parents are made, owned by root, 0755.
        type: str
        required: true
      template:
        description: A template, searched where C(ansible.builtin.template) searches. One of O(files[].template),
          O(files[].content), O(files[].source).
        type: str
      content:
        description: The content itself.
        type: str
      source:
        description: A file, searched where C(ansible.builtin.copy) searches, copied as it is.
        type: str
      vars:
        description: More variables for this template.
        type: dict
        default: {}
      owner:
        description: User name or number.
        type: str
        default: root
      group:
        description: Group name or number.
        type: str
        default: root
      mode:
        description: Octal, as a quoted string.
        type: str
        default: "0644"
      sensitive:
        description: Whether the content must never be shown in a difference, in a message or in a log.
        type: bool
        default: false
      validate:
        description: Command that proves the file good, C(%s) is the new file in a private place under its own name.
          No shell.
        type: str
      effects:
        description:
          - What is owed when the content changes or the file is removed. C(restart:UNIT), C(reload:UNIT),
            C(daemon-reload) or words of the role's own.
          - Files below C(/etc/systemd/system) cause C(daemon-reload) by themselves.
        type: list
        elements: str
        default: []
      variable:
        description: The variable that an operator should use instead of an edit. Named when the file drifts.
        type: str
  directories:
    description: Directories to create or correct. They are never removed.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path on the host.
        type: str
        required: true
      owner:
        description: User name or number.
        type: str
        default: root
      group:
        description: Group name or number.
        type: str
        default: root
      mode:
        description: Octal, as a quoted string.
        type: str
        default: "0755"
  absent:
    description:
      - Files or links that must not be there. A foreign one is removed and a copy kept.
      - Each is a path, or a dictionary of C(path) and C(effects).
    type: list
    elements: raw
    default: []
  validate:
    description: Validators of whole trees, run when a file below O(validate[].tree) changes.
    type: list
    elements: dict
    default: []
    suboptions:
      tree:
        description: Directory that is copied, links kept, with the new files laid over the copy and the removed ones
          taken out.
        type: str
        required: true
      command:
        description: Command that proves the tree good, C(%s) is the copy. No shell. Includes must be relative for it
          to see the copy.
        type: str
        required: true
  local_edits:
    description:
      - What to do about drift. V(stop) fails before anything is written and shows the difference; V(keep) leaves the
        file and reports it each time;
        V(overwrite) replaces it and keeps the edited copy.
      - Without it, the variable C(local_edits) decides, and without that V(stop).
    type: str
    choices: [stop, keep, overwrite]
  settled:
    description: Takes these effects off the list of what is owed, and does nothing else. For roles that restart by
      other means.
    type: list
    elements: str
  state_dir:
    description: Directory of ledgers and replaced files on the host.
    type: path
    default: /var/lib/zulip-ha
  bundle:
    description: What the action plugin sends to the host. Not for tasks.
    type: str
attributes:
  check_mode:
    description: Predicts, also on a host without the packages, users and groups.
    support: full
  diff_mode:
    description: Shows each file's difference unless it is sensitive.
    support: full
notes:
  - In check mode a validator that is not installed is skipped. Where the role never wrote a file yet, a refusal is a
    warning, because the
    configuration may name users or certificates that only a real run creates.
  - No C(no_log) is needed on the task; it would hide the drift.
author: zulip-ha
"""

EXAMPLES = r"""
- name: Redis | Render the configuration
  managed_files:
    role: redis
    files:
      - path: /etc/redis/redis.conf
        template: redis.conf.j2
        owner: redis
        group: redis
        mode: "0640"
        sensitive: true
        effects: ["restart:redis-server.service"]
        variable: redis_settings
    directories:
      - {path: /etc/redis/local.d, owner: redis, group: redis, mode: "0750"}
  register: __redis_files

- name: Nginx | Render the configuration
  managed_files:
    role: nginx
    files:
      - {path: /etc/nginx/nginx.conf, template: nginx.conf.j2, effects: ["reload:nginx.service"]}
    absent:
      - {path: /etc/nginx/sites-enabled/default, effects: ["reload:nginx.service"]}
    validate:
      - {tree: /etc/nginx, command: "nginx -t -c %s/nginx.conf"}

- name: Etcd | Note that the member was restarted
  managed_files:
    role: etcd
    settled: ["restart:etcd.service"]
"""

RETURN = r"""
effects:
  description: What is owed, from this run and from interrupted ones. The task is C(changed) as long as there is
    anything.
  returned: success
  type: list
  elements: str
  sample: ["daemon-reload", "restart:redis-server.service"]
files:
  description: Path to C(created), C(changed), C(unchanged), C(kept) or C(removed).
  returned: success
  type: dict
directories:
  description: Path to C(created), C(changed) or C(unchanged).
  returned: success, unless O(settled) is given
  type: dict
drift:
  description: Files that were changed on the host since they were written, with the difference.
  returned: always, except on failures other than drift
  type: list
  elements: dict
  contains:
    path: {description: The file., type: str}
    role: {description: The ledger., type: str}
    reason:
      description: C(edited), C(removed) or what it was replaced by.
      type: str
    variable: {description: Where the change should be made instead., type: str}
    sensitive: {description: Whether the content is hidden., type: bool}
    diff: {description: From what was written to what is there., type: str}
replaced:
  description: Path to the copy of its previous version, for files that were not known to be ours.
  returned: success, unless O(settled) is given
  type: dict
settled:
  description: Effects that were owed and are not any more.
  returned: when O(settled) is given
  type: list
  elements: str
"""

import base64
import json
import shutil
import tempfile
import zlib

from ansible.module_utils.basic import AnsibleModule

STATE_DIR = "/var/lib/zulip-ha"

FILE_SPEC = {
    "path": {"type": "str", "required": True},
    "template": {"type": "str"},
    "content": {"type": "str"},
    "source": {"type": "str"},
    "vars": {"type": "dict", "default": {}},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str", "default": "0644"},
    "sensitive": {"type": "bool", "default": False},
    "validate": {"type": "str"},
    "effects": {"type": "list", "elements": "str", "default": []},
    "variable": {"type": "str"},
}
DIRECTORY_SPEC = {
    "path": {"type": "str", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str", "default": "0755"},
}
TREE_SPEC = {"tree": {"type": "str", "required": True}, "command": {"type": "str", "required": True}}
ARGUMENT_SPEC = {
    "role": {"type": "str", "required": True},
    "files": {
        "type": "list",
        "elements": "dict",
        "options": FILE_SPEC,
        "mutually_exclusive": [("template", "content", "source")],
        "required_one_of": [("template", "content", "source")],
    },
    "directories": {"type": "list", "elements": "dict", "options": DIRECTORY_SPEC, "default": []},
    "absent": {"type": "list", "elements": "raw", "default": []},
    "validate": {"type": "list", "elements": "dict", "options": TREE_SPEC, "default": []},
    "local_edits": {"type": "str", "choices": ["stop", "keep", "overwrite"]},
    "settled": {"type": "list", "elements": "str"},
    "state_dir": {"type": "path", "default": STATE_DIR},
}


def main() -> None:
    # The contents travel as one secret: neither the host's journal nor the result can show them.
    spec = {**ARGUMENT_SPEC, "bundle": {"type": "str", "no_log": True}, "role": {"type": "str"}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    # Not at the top: programs that only read the options know nothing of our module utilities.
    from ansible.module_utils.managed_ledger import ManagedError
    from ansible.module_utils.managed_plan import Bundle, run

    if not module.params["bundle"]:
        module.fail_json(
            msg="managed_files needs its action plugin (action_plugins/managed_files.py) on the controller."
        )
    bundle = Bundle.from_data(json.loads(zlib.decompress(base64.b64decode(module.params["bundle"]))))
    staging = tempfile.mkdtemp(prefix="managed-files-", dir=module.tmpdir)
    try:
        result = run(bundle, staging, module.check_mode, module._diff)
    except ManagedError as error:
        module.fail_json(msg=str(error), **error.result)
    except OSError as error:
        # A full disk, an immutable file: the ledger knows what was begun, so the next run goes on from there.
        module.fail_json(msg=f"{error.filename or bundle.role}: {error.strerror}. Run it again when that is put right.")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for warning in result.pop("warnings", ()):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
