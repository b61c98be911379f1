"""Refuses an inventory that cannot work, on the controller, before any host is contacted."""

from __future__ import annotations

DOCUMENTATION = """
module: validate_site
short_description: Refuse an inventory that cannot work before any host is contacted
version_added: "1.0.0"
description:
  - Looks at the inventory (groups, variables and where each was written) and at files on the controller. Opens no
    connection and changes nothing.
  - Collects every problem, one line each with its place and what to do, and fails if there is one.
  - A variable with one of our prefixes that no role knows, one with an old name, one that is a single letter away from
    a known one, and a value of the wrong type are problems. Types are strict, since C("no") is true to a template.
options:
  artifact:
    description: Whether the verb deploys C(release_artifact), so that it has to be there and match its checksum.
    type: bool
    default: true
  secrets:
    description: Whether the verb needs the secrets, so that all of them have to be in the vault.
    type: bool
    default: true
attributes:
  check_mode:
    description: Does the same, since it changes nothing.
    support: full
"""

EXAMPLES = """
- name: Inventory | Refuse what cannot work
  validate_site:

- name: Inventory | Refuse what cannot work, for a verb that deploys nothing
  validate_site:
    artifact: false
"""

RETURN = """
msg:
  description: How many problems there are. The problems themselves are printed as error lines.
  returned: failure
  type: str
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.release import __version__ as core_version
from ansible.utils.display import Display
from ansible.utils.vars import load_extra_vars

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
from plugin_utils.validation import application, backup, controller, known, stamp, topology, variables  # noqa: E402
from plugin_utils.validation.places import at, place, short  # noqa: E402

display = Display()

_REMOTE = (None, "ssh", "smart", "paramiko", "paramiko_ssh", "ansible.builtin.ssh", "ansible.builtin.paramiko_ssh")
_SITE_VALUES = (
    "site_hostname",
    "site_administrator",
    "site_network",
    "site_virtual_ip",
    "edge_mode",
    "app_profile",
    "release_artifact",
    "release_artifact_sha256",
    "release_directory",
    stamp.VALUE,
    *application.VALUES,
    *backup.VALUES,
)


class ActionModule(ActionBase):
    """Collects the facts of the inventory and hands them to the checks."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run all checks and fail with the list of problems."""
        result = super().run(tmp, task_vars)
        _spec, options = self.validate_argument_spec(
            {"artifact": {"type": "bool", "default": True}, "secrets": {"type": "bool", "default": True}}
        )
        # Nothing else is worth asking where the version is wrong: the answers stand on internals of ansible-core.
        problems = list(controller.version_problems(core_version, sys.version_info[:3]))
        if not problems:
            problems = list(dict.fromkeys(self._problems(task_vars or {}, options)))
        result["changed"] = False
        if problems:
            # Not in the message: what prints results would fold and quote the lines, and print them twice.
            for problem in problems:
                display.error(problem)
            count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
            result["failed"] = True
            result["msg"] = f"{count}, see above. No host was contacted."
        return result

    def _problems(self, task_vars: dict[str, Any], options: dict[str, Any]) -> Iterator[str]:
        """Yield the problems of the inventory and of the files that it names."""
        self._hostvars = task_vars["hostvars"]
        self._views: dict[str, Any] = {}
        inventory = self._hostvars._inventory
        names = [
            name for name in inventory.hosts if name != "localhost" or task_vars["groups"].get("all") == ["localhost"]
        ]
        sources = [str(source) for source in task_vars.get("ansible_inventory_sources") or ()]
        source = ", ".join(short(path) if Path(path).exists() else path for path in sources) or "the inventory"

        repository = known.read(ROOT)
        groups = {name: list(hosts) for name, hosts in task_vars["groups"].items()}
        shared = names[0] if names else "localhost"
        values = {name: self._value(shared, name) for name in _SITE_VALUES}
        for name in ("app_profile", "edge_mode", "release_artifact", "release_artifact_sha256"):
            if values[name] is None and not variables.is_template(repository.defaults.get(name)):
                values[name] = repository.defaults.get(name)
        ours = dict.fromkeys(
            host for group in (*topology.REQUIRED, *topology.OPTIONAL) for host in groups.get(group, ())
        )
        hosts = [self._host(name) for name in ours]
        site = topology.Site(inventory=source, groups=groups, hosts=hosts, values=values)

        layers = list(self._layers(inventory, sources))
        yield from variables.check(layers, repository, ROOT / "group_vars" / "all", self._render)
        where = place(values[stamp.VALUE]) if values[stamp.VALUE] else source
        yield from stamp.version_problems(values[stamp.VALUE], stamp.read_version(ROOT), repository.breaking, where)
        yield from topology.group_problems(site)
        if not hosts:
            return
        yield from topology.identity_problems(site)
        yield from topology.address_problems(site)
        yield from application.application_problems(values, source)
        if groups.get("backup"):
            yield from backup.backup_problems(values, source)
        yield from controller.profile_problems(values["app_profile"], ROOT, site.where("app_profile"))
        if options["secrets"]:
            yield from self._secret_problems(repository.secrets, shared, source, sources)
        if options["artifact"] and (values["release_artifact"] is not None or "release_artifact" in repository.names):
            where = site.where("release_artifact")
            if values["release_artifact"]:
                yield from controller.artifact_problems(
                    values["release_artifact"], values["release_artifact_sha256"], ROOT, where
                )
            else:
                shelf = Path(values["release_directory"] or ROOT / "artifacts")
                yield from controller.shelf_problems(values["app_profile"], shelf, where)

    def _view(self, host: str) -> Any:
        """Return the templated variables of a host; making that view is what costs, so it is made once."""
        if host not in self._views:
            self._views[host] = self._hostvars[host]
        return self._views[host]

    def _render(self, host: str, name: str) -> Any:
        return self._view(host)[name]

    def _value(self, host: str, name: str) -> Any:
        """Return a variable as the host sees it; None where it is not set or cannot be known yet."""
        try:
            return self._render(host, name)
        except Exception:  # noqa: BLE001
            return None

    def _host(self, name: str) -> topology.Host:
        port = str(self._value(name, "ansible_port") or 22)
        return topology.Host(
            name=name,
            address=self._value(name, "site_address"),
            ansible_host=self._value(name, "ansible_host"),
            port=int(port) if port.isdigit() else 22,
            remote=self._value(name, "ansible_connection") in _REMOTE,
        )

    def _layers(self, inventory: Any, sources: Iterable[str]) -> Iterator[variables.Layer]:
        """Yield each place of the inventory that sets variables, as it is written there."""
        folders = [path if path.is_dir() else path.parent for path in map(Path, sources) if path.exists()]
        entities = [("group_vars", group) for group in inventory.groups.values()]
        entities += [("host_vars", host) for host in inventory.hosts.values()]
        for subfolder, entity in entities:
            hosts = (entity.name,)
            if subfolder == "group_vars":
                hosts = tuple(host.name for host in entity.get_hosts())
            if entity.vars:
                yield variables.Layer(dict(entity.vars), hosts=hosts)
            for folder in folders:
                parent = folder.resolve() / subfolder
                if not parent.is_dir():
                    continue
                for file in self._loader.find_vars_files(str(parent), entity.name):
                    path = file if isinstance(file, str) else file.decode()
                    # host_group_vars has read it by the same name, so that this comes out of the loader's cache
                    data = self._loader.load_from_file(path, cache="all", unsafe=True, trusted_as_template=True)
                    if isinstance(data, dict):
                        yield variables.Layer(data, file=Path(path), hosts=hosts)
        extra = load_extra_vars(self._loader)
        if extra:
            yield variables.Layer(extra, hosts=tuple(inventory.hosts), command_line=True)

    def _secret_problems(self, wanted: Iterable[str], host: str, source: str, sources: list[str]) -> Iterator[str]:
        """Yield one line for all secrets that the inventory lacks."""
        missing = [name for name in wanted if not self._value(host, name)]
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            options = "".join(f" -i {short(path)}" for path in sources)
            yield at(source, f"missing secrets: {shown}; run ansible-playbook playbooks/secrets.yml{options}")
