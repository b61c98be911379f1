#!/usr/bin/python
"""Compare every file of every ledger with what is on the host. Changes nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: managed_drift
short_description: List what was changed by hand in the files of M(managed_files)
description:
  - Reads every ledger on the host and compares it with the files. Changes nothing.
options:
  state_dir:
    description: Directory of the ledgers on the host.
    type: path
    default: /var/lib/zulip-ha
attributes:
  check_mode:
    description: The same.
    support: full
author: zulip-ha
"""

EXAMPLES = r"""
- name: Drift | Compare the files with the ledgers
  managed_drift:
  register: drift
"""

RETURN = r"""
drift:
  description: Files that are not as they were written.
  returned: success
  type: list
  elements: dict
  contains:
    path: {description: The file., type: str}
    role: {description: The ledger., type: str}
    reason:
      description: C(edited), C(removed), what it was replaced by, or C(mode) when owner, group or mode differ.
      type: str
    variable: {description: Where the change should be made instead., type: str}
    sensitive: {description: Whether the content is hidden., type: bool}
    diff: {description: From what was written to what is there., type: str}
owed:
  description: Role to the effects that an interrupted run still owes.
  returned: success
  type: dict
files:
  description: How many files the ledgers hold.
  returned: success
  type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={"state_dir": {"type": "path", "default": "/var/lib/zulip-ha"}}, supports_check_mode=True
    )
    # Not at the top: programs that only read the options know nothing of our module utilities.
    from ansible.module_utils.managed_ledger import Ledger, ManagedError, find_roles, read_state, same_attributes

    drift: list[dict[str, Any]] = []
    try:
        ledgers = [Ledger(module.params["state_dir"], role) for role in find_roles(module.params["state_dir"])]
    except ManagedError as error:
        module.fail_json(msg=str(error))
    for ledger in ledgers:
        for path, entry in sorted(ledger.files.items()):
            state = read_state(path)
            reason = entry.drift_reason(state)
            if (
                reason is None
                and state.content is not None
                and not same_attributes(state, entry.owner, entry.group, entry.mode)
            ):
                reason = "mode"
            if reason:
                drift.append(ledger.drift(path, reason, state, entry.sensitive))
    owed = {ledger.role: ledger.owed for ledger in ledgers if ledger.owed}
    module.exit_json(changed=False, drift=drift, owed=owed, files=sum(len(ledger.files) for ledger in ledgers))


if __name__ == "__main__":
    main()
