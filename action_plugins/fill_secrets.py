"""Adds the secrets that an inventory lacks to its vault-encrypted file; changes those alone that it is given."""

from __future__ import annotations

DOCUMENTATION = """
module: fill_secrets
short_description: Add missing secrets to the inventory's vault
version_added: "1.0.0"
description:
  - Adds what the schema names and the inventory does not set to C(group_vars/all/80-secrets.yml) next to the inventory.
    What is in the file stays letter for letter, comments included; a variable that is there but empty gets a value.
  - The file is encrypted as a whole with the password that opened it. A new file is encrypted with the first password
    given; the lab's own password serves only for the inventories in O(lab_inventories).
  - The file is replaced in one step, so a run killed at any moment leaves the old file or the new one.
  - Returns names, never values.
options:
  schema:
    description: "The secrets by name: C({name: {kind: ..., ...}})."
    type: dict
    required: true
  site_name:
    description: Name of the site, for the subject of the CA and the comment of the SSH key.
    type: str
    required: true
  file:
    description: File to fill. By default C(group_vars/all/80-secrets.yml) next to the only inventory source.
    type: path
  replace:
    description:
      - Values to take from elsewhere, by name, as for secrets of a server that moves here. The line that was there
        stays as a comment above the new one. Nothing else is made then.
    type: dict
    default: {}
  lab_inventories:
    description: Folders of the repository below which a new file may be encrypted with the lab's own password.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Tells the names that would be added and writes nothing.
    support: full
"""

EXAMPLES = """
- name: Secrets | Fill what is missing
  fill_secrets:
    schema: "{{ secrets_schema }}"
    site_name: "{{ site_name }}"
    lab_inventories: [inventories/lab]
"""

RETURN = """
file:
  description: The secrets file.
  returned: success
  type: str
added:
  description: Names of the secrets that were made or replaced.
  returned: success
  type: list
  elements: str
"""

import datetime
import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.parsing.vault import parse_vaulttext_envelope
from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
from plugin_utils.validation import secrets, vault  # noqa: E402


class ActionModule(ActionBase):
    """Reads the secrets file, makes what is missing and puts the new file in place."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fill the file, or say in one line why not."""
        result = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            {
                "schema": {"type": "dict", "required": True},
                "site_name": {"type": "str", "required": True},
                "file": {"type": "path"},
                "replace": {"type": "dict", "default": {}, "no_log": True},
                "lab_inventories": {"type": "list", "elements": "str", "default": []},
            }
        )
        variables = task_vars or {}
        try:
            file = self._file(options["file"], variables)
            added = self._fill(file, options, variables)
        except secrets.SecretsError as error:
            return {**result, "failed": True, "msg": str(error)}
        # Printed without -v too: which secrets are new is what one runs this for.
        return {
            **result,
            "changed": bool(added),
            "file": str(file),
            "added": added,
            "_ansible_verbose_always": bool(added),
        }

    def _file(self, path: str | None, variables: dict[str, Any]) -> Path:
        """Return the file to fill."""
        if path:
            return Path(path).resolve()
        sources = [Path(source) for source in variables.get("ansible_inventory_sources") or () if Path(source).exists()]
        folders = list(dict.fromkeys(source if source.is_dir() else source.parent for source in sources))
        if len(folders) != 1:
            raise secrets.SecretsError(
                f"{len(folders)} inventories given and one is needed to know whose secrets to fill; give one -i, "
                "or name the file with -e secrets_file=..."
            )
        return (folders[0] / "group_vars" / "all" / "80-secrets.yml").resolve()

    def _fill(self, file: Path, options: dict[str, Any], variables: dict[str, Any]) -> list[str]:
        """Add what is missing and return the names."""
        folder = file.parent
        check = self._task.check_mode
        if not folder.is_dir():
            if check:
                return secrets.missing(options["schema"], variables)
            folder.mkdir(parents=True)
        with secrets.locked(folder):
            text, label, secret = self._read(file, options["lab_inventories"])
            if options["replace"]:
                return self._replace(file, text, options["replace"], label, secret)
            present = {name: self._elsewhere(variables, name) for name in secrets.missing(options["schema"], {})}
            present |= {name: value for name, value in secrets.parse(text, file).items() if value}
            made = secrets.make(options["schema"], present, options["site_name"])
            if not made:
                return []
            content = secrets.compose(text, made, file)
            if not check:
                secrets.replace(file, self._loader._vault.encrypt(content, secret=secret, vault_id=label))
        return list(made)

    def _replace(self, file: Path, text: str, given: dict[str, Any], label: str | None, secret: Any) -> list[str]:
        """Write the given values, and return the names of those that are new."""
        wanted = {name: str(value) for name, value in given.items()}
        there = secrets.parse(text, file)
        names = [name for name, value in wanted.items() if there.get(name) != value]
        content = secrets.revise(text, wanted, file, f"replaced on {datetime.date.today().isoformat()}")
        if names and not self._task.check_mode:
            secrets.replace(file, self._loader._vault.encrypt(content, secret=secret, vault_id=label))
        return names

    def _elsewhere(self, variables: dict[str, Any], name: str) -> Any:
        """Return a secret that another file of the inventory sets, as a password store would be wired."""
        try:
            return self._templar.template(variables.get(name))
        except AnsibleError:
            return variables.get(name)

    def _read(self, file: Path, lab_inventories: list[str]) -> tuple[str, str | None, Any]:
        """Return the plain text of the file, and label and secret to encrypt the new one with."""
        lib = self._loader._vault
        content = file.read_bytes() if file.exists() else b""
        if not content.strip():
            return "", *self._secret_for_new(file, lab_inventories)
        if not content.startswith(vault.HEADER):
            raise secrets.SecretsError(f"{file} is not encrypted; run ansible-vault encrypt {file}")
        try:
            plain, _used, secret = lib.decrypt_and_get_vault_id(content)
            label = parse_vaulttext_envelope(content)[3]
        except AnsibleError:
            raise secrets.SecretsError(vault.complaint(file, lib.secrets)) from None
        return plain.decode(), label, secret

    def _secret_for_new(self, file: Path, lab_inventories: list[str]) -> tuple[str | None, Any]:
        """Return label and secret for a file that is not there yet."""
        given = list(self._loader._vault.secrets or ())
        own = vault.own_secrets(given)
        if own:
            return own[0]
        if not given:
            raise secrets.SecretsError(
                f"{file} is to be encrypted and no vault password was given; give it by {vault.HOW}"
            )
        if not any((ROOT / folder).resolve() in file.parents for folder in lab_inventories):
            raise secrets.SecretsError(
                f"{file} is to be encrypted and no vault password but the lab's own was given; "
                f"give its password by {vault.HOW}"
            )
        return given[0]
