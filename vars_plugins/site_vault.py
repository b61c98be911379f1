"""Says in one line which vault file of the inventory cannot be opened, before anything else reads it."""

from __future__ import annotations

DOCUMENTATION = """
name: site_vault
version_added: "1.0.0"
short_description: Tests that the inventory's vault files can be opened
description:
  - Sets no variables. Tries every vault-encrypted file of C(group_vars/) and C(host_vars/) next to the inventory with
    the passwords that were given, and ends the run with one line for the first that does not open. That happens when
    the first play asks for variables, so no host was contacted by then.
  - Refuses an unsupported ansible-core in the same way.
  - Has to stand before P(ansible.builtin.host_group_vars#vars) in C(vars_plugins_enabled).
requirements:
  - enabled in the configuration
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.parsing.vault import AnsibleVaultError, AnsibleVaultFormatError
from ansible.plugins.vars import BaseVarsPlugin
from ansible.release import __version__ as core_version

sys.path.append(str(Path(__file__).resolve().parents[1]))
from plugin_utils.validation.controller import version_problems  # noqa: E402
from plugin_utils.validation.vault import HEADER, complaint  # noqa: E402

# Folders that were looked through in this process. Plays ask for variables once a host and task.
_SEEN: set[str] = set()


def vault_files(folder: Path) -> Iterator[Path]:
    """Yield the encrypted files below a folder that Ansible would load as variables."""
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith(".") or name.endswith("~"):
                continue
            if os.path.splitext(name)[1] not in ("", *C.YAML_FILENAME_EXTENSIONS):
                continue
            path = Path(parent, name)
            try:
                with path.open("rb") as stream:
                    encrypted = stream.read(len(HEADER)) == HEADER
            except OSError:
                continue  # whoever loads it says so better
            if encrypted:
                yield path


class VarsModule(BaseVarsPlugin):
    """Looks, and returns no variables."""

    REQUIRES_ENABLED = True
    is_stateless = True

    def get_vars(self, loader: Any, path: str, entities: Any) -> dict[str, Any]:
        """Test the files next to the inventory source; called for hosts and groups alike."""
        if not _SEEN:
            # Also asked by validate_site; but this is the first code of ours to run, and an old core breaks it.
            for problem in version_problems(core_version, sys.version_info[:3]):
                raise AnsibleParserError(problem)
        if path not in _SEEN:
            for folder in ("group_vars", "host_vars"):
                for file in vault_files(Path(os.path.realpath(path), folder)):
                    self._test(loader, file)
            _SEEN.add(path)
        return {}

    def _test(self, loader: Any, file: Path) -> None:
        """Open one file or say why not."""
        try:
            # Loaded as host_group_vars does it, which then finds it in the loader's cache: nothing is opened twice.
            loader.load_from_file(str(file), cache="all", unsafe=True, trusted_as_template=True)
        except AnsibleVaultFormatError:
            raise AnsibleParserError(
                f"{file} is a damaged vault file; restore it from your backup or version control"
            ) from None
        except AnsibleVaultError:
            raise AnsibleParserError(complaint(file, loader._vault.secrets)) from None
        except AnsibleError:
            return  # not a matter of passwords; host_group_vars reports it with its place
