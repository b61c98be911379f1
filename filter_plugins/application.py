"""Filters that shape an application's contract into commands, settings, units, shards and sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

FIRST_TORNADO_PORT = 9800
PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
UNIT_NAME = re.compile(r"[A-Za-z0-9_.-]+")
HOST_NAME = re.compile(r"[A-Za-z0-9_.:\[\]-]+")


def _plain(value: Any) -> Any:
    """Return a value as plain Python: Ansible's own strings and numbers carry tags, which would be printed too."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, Iterable):
        return [_plain(item) for item in value]
    raise AnsibleFilterError(f"a value of the type {type(value).__name__} has no form in a settings file: {value!r}")


def python_literal(value: Any) -> str:
    """Return a value as a Python literal, its type kept."""
    plain = _plain(value)
    if isinstance(plain, float) and (plain != plain or plain in (float("inf"), float("-inf"))):
        raise AnsibleFilterError("a number that is infinite or none has no form in a settings file")
    return repr(plain)


def python_assignments(settings: Mapping[str, Any]) -> str:
    """Return one Python assignment a line, sorted by name."""
    for name in settings:
        if not NAME.fullmatch(name):
            raise AnsibleFilterError(f"zulip_settings: {name!r} is not a name that a settings file can assign")
    return "".join(f"{name} = {python_literal(settings[name])}\n" for name in sorted(settings))


def ini_sections(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return ini text, sorted. A value is one line; booleans are written as Zulip's reader wants them."""
    parts = []
    for section in sorted(sections):
        lines = [f"[{section}]"]
        for name in sorted(sections[section]):
            value = sections[section][name]
            text = ("true" if value else "false") if isinstance(value, bool) else "" if value is None else str(value)
            if "\n" in text or "\r" in text or "=" in name or "\n" in name:
                raise AnsibleFilterError(f"[{section}] {name}: an ini value must be one line")
            lines.append(f"{name} = {text}".rstrip() if not text else f"{name} = {text}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def contract_command(argv: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """Fill the {placeholders} of a command of the contract.

    A word that is nothing but a placeholder whose value is a list becomes that many words.
    """

    def value_of(name: str) -> Any:
        if name not in values:
            raise AnsibleFilterError(
                f"the command {' '.join(argv)!r} wants {{{name}}}, known are: {', '.join(sorted(values))}"
            )
        return values[name]

    result: list[str] = []
    for word in argv:
        whole = PLACEHOLDER.fullmatch(word)
        if whole and not isinstance(value_of(whole.group(1)), str) and isinstance(value_of(whole.group(1)), Sequence):
            result += [str(item) for item in value_of(whole.group(1))]
        else:
            result.append(PLACEHOLDER.sub(lambda found: str(value_of(found.group(1))), word))
    return result


def systemd_exec(argv: Sequence[str], specifiers: Iterable[str] = ()) -> str:
    """Return a command as systemd's Exec lines want it.

    Each word is taken literally, apart from the given specifiers (as `%i`).
    """
    words = []
    for word in argv:
        if "\n" in word:
            raise AnsibleFilterError(f"a unit's command cannot hold a line break: {word!r}")
        text = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$").replace("%", "%%")
        for specifier in specifiers:
            text = text.replace("%" + specifier, specifier)
        words.append(text if re.fullmatch(r"[^\s\"';\\]+", text) else f'"{text}"')
    return " ".join(words)


def by_memory(table: Iterable[Mapping[str, Any]], memory_mb: float) -> Any:
    """Return the value of the last row whose `above_mb` is less than the host's memory."""
    rows = sorted(table, key=lambda row: row["above_mb"])
    fitting = [row["value"] for row in rows if memory_mb > row["above_mb"]]
    if not fitting:
        raise AnsibleFilterError(f"a host with {memory_mb} MB of memory is smaller than any size that is known")
    return fitting[-1]


def tornado_ports(shards: int) -> list[int]:
    """Return the ports of the shards, contiguous from 9800, as the application counts on."""
    if shards < 1:
        raise AnsibleFilterError(f"there must be one Tornado shard or more, not {shards}")
    return [FIRST_TORNADO_PORT + number for number in range(shards)]


def _ports(ports: int | Sequence[int], known: Sequence[int], what: str) -> list[int]:
    """Return the ports of one assignment, checked."""
    wanted = [int(port) for port in ([ports] if isinstance(ports, int | str) else ports)]
    unknown = [port for port in wanted if port not in known]
    if not wanted or unknown:
        raise AnsibleFilterError(f"{what}: Tornado shards are {known[0]} to {known[-1]}, not {unknown or ports}")
    return wanted


def tornado_sharding(
    shards: int, hostname: str, hosts: Mapping[str, Any], regexes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Decide which organisation is served by which shards.

    hosts: {host name: port or [ports]}; regexes: [{regex, ports}], tried in order after the hosts. Without any of them
    and with several shards, all of them serve the site's own host name, by user.
    Returns `ports`, `json` (sharding.json), and for nginx `upstreams` ({name: [ports]}) with `hosts` and `regexes`.
    """
    known = tornado_ports(shards)
    result: dict[str, Any] = {"ports": known, "json": {}, "upstreams": {}, "hosts": {}, "regexes": []}
    if shards == 1:
        result["upstreams"] = {"tornado": known}
        result["default"] = "tornado"
        return result
    if not hosts and not regexes:
        hosts = {hostname: known}

    def upstream(ports: list[int]) -> str:
        name = "tornado" + "_".join(map(str, ports))
        result["upstreams"][name] = ports
        return name

    def compact(ports: list[int]) -> int | list[int]:
        return ports[0] if len(ports) == 1 else ports

    result["default"] = upstream([known[0]])
    result["json"] = {"shard_map": {}, "shard_regexes": []}
    for host in sorted(hosts):
        if not HOST_NAME.fullmatch(host):
            raise AnsibleFilterError(f"tornado sharding: {host!r} is not a host name")
        ports = _ports(hosts[host], known, host)
        result["json"]["shard_map"][str(host)] = compact(ports)
        result["hosts"][str(host)] = upstream(ports)
    for entry in regexes:
        if re.search(r"[\s\"{};]", entry["regex"]):
            raise AnsibleFilterError(
                f"tornado sharding: the expression {entry['regex']!r} must hold no blank, quote, brace or semicolon"
            )
        ports = _ports(entry["ports"], known, entry["regex"])
        result["json"]["shard_regexes"].append([str(entry["regex"]), compact(ports)])
        result["regexes"].append({"regex": str(entry["regex"]), "upstream": upstream(ports)})
    served = {port for ports in result["upstreams"].values() for port in ports}
    assigned = {
        port
        for ports in result["json"]["shard_map"].values()
        for port in ([ports] if isinstance(ports, int) else ports)
    }
    assigned |= {
        port for _, ports in result["json"]["shard_regexes"] for port in ([ports] if isinstance(ports, int) else ports)
    }
    if idle := sorted((served | set(known)) - assigned):
        raise AnsibleFilterError(
            f"tornado sharding: no organisation is assigned to {idle}; "
            f"every shard from {known[0]} to {known[-1]} must be named"
        )
    return result


def sharding_json(sharding: Mapping[str, Any]) -> str:
    """Return the text of sharding.json."""
    return json.dumps(_plain(sharding["json"]), indent=2, sort_keys=True) + "\n"


def _check_unit_names(entries: Iterable[Mapping[str, Any]], what: str) -> None:
    """Refuse a name that would not be one unit's."""
    for entry in entries:
        if not UNIT_NAME.fullmatch(entry["name"]):
            raise AnsibleFilterError(
                f"{what}: {entry['name']!r} is not a name for a unit: letters, digits, dots, dashes and underscores"
            )


def application_units(
    ports: Iterable[int],
    queues: Iterable[Mapping[str, Any]],
    singletons: Iterable[Mapping[str, Any]],
    crons: Iterable[Mapping[str, Any]],
    full_text: bool,
) -> dict[str, list[str]]:
    """Return the application's units: `always` on each host, `active` on the active one, and both together as `all`."""
    queues, singletons, crons = list(queues), list(singletons), list(crons)
    for entries, what in ((queues, "queues"), (singletons, "singletons"), (crons, "crons")):
        _check_unit_names(entries, what)
    always = ["zulip-django.service"]
    always += [f"zulip-tornado@{port}.service" for port in ports]
    always += [f"zulip-worker@{queue['name']}.service" for queue in queues]
    always += ["zulip-fts.service"] if full_text else []
    always += [f"zulip-cron-{cron['name']}.timer" for cron in crons if not cron["once"]]
    active = [f"zulip-singleton@{singleton['name']}.service" for singleton in singletons]
    active += [f"zulip-cron-{cron['name']}.timer" for cron in crons if cron["once"]]
    return {"always": always, "active": active, "all": always + active}


SYSTEM = "/etc/systemd/system"


def _restart(units: Iterable[str]) -> list[str]:
    """Return the effects that restart units."""
    return [f"restart:{unit}" for unit in units]


class _UnitFiles:
    """Collects the unit files of an application, in the form that `managed_files` takes."""

    def __init__(
        self,
        contract: Mapping[str, Any],
        memory: Mapping[str, Any],
        values: Mapping[str, Any],
        singleton: str,
        home: str,
        uploads: str,
    ):
        self.contract = contract
        self.memory = memory
        self.values = values
        self.singleton = singleton
        self.files: list[dict[str, Any]] = []
        self.sockets, self.dumps = f"{home}/deployments", f"{home}/tornado"
        self.uploads = [uploads] if uploads else []

    def add(self, path: str, template: str, effects: Iterable[str], **variables: Any) -> None:
        """Add one file."""
        entry = {"path": f"{SYSTEM}/{path}", "template": template, "vars": variables, "effects": list(effects)}
        self.files.append(entry)

    def command(self, argv: Sequence[str], **values: Any) -> list[str]:
        """Fill a command's placeholders."""
        return contract_command(argv, {**self.values, **values})

    def django(self) -> None:
        """The Django server."""
        unit = {
            "description": "Django",
            "exec": systemd_exec(self.command(self.contract["commands"]["django"])),
            # One worker after the other, so that no request fails; not for ever, should nobody read the pipe.
            "reload": f"/usr/bin/timeout 5 /bin/sh -c 'echo c > {self.sockets}/uwsgi-control'",
            "type": self.contract["django"]["type"],
            "nice": self.contract["django"]["nice"],
            "kill_signal": self.contract["django"]["kill_signal"],
            "memory": self.memory["django"],
            "writable": [self.sockets, *self.uploads],
        }
        self.add("zulip-django.service", "unit.service.j2", _restart(["zulip-django.service"]), unit=unit)

    def template(self, name: str, instances: Mapping[str, Mapping[str, Any]], unit: Mapping[str, Any]) -> None:
        """A template, with a file for each instance."""
        units = {instance: f"zulip-{name}@{instance}.service" for instance in instances}
        unit = {**unit, "template": f"zulip-{name}"}
        self.add(f"zulip-{name}@.service", "unit.service.j2", _restart(units.values()), unit=unit)
        for instance, own in instances.items():
            self.add(
                f"{units[instance]}.d/50-instance.conf", "instance.conf.j2", _restart([units[instance]]), instance=own
            )

    def tornado(self, ports: Iterable[int]) -> None:
        """The event servers."""
        unit = {
            "description": "Tornado at port %i",
            "exec": systemd_exec(self.command(self.contract["commands"]["tornado"], port="%i"), ["%i"]),
            "writable": [self.dumps],
        }
        instances = {
            str(port): {"description": f"Tornado at port {port}", "memory": self.memory["tornado"]} for port in ports
        }
        self.template("tornado", instances, unit)

    def workers(self, queues: Iterable[Mapping[str, Any]]) -> None:
        """The queue workers."""
        unit = {
            "description": "Worker of the queue %i",
            "exec": systemd_exec(self.command(self.contract["commands"]["worker"], queue="%i"), ["%i"]),
            "nice": self.contract["worker"]["nice"],
            "writable": self.uploads,
        }
        instances = {
            queue["name"]: {
                "description": f"Worker of the queue {queue['name']}",
                "memory": queue.get("memory", self.memory["worker"]),
            }
            for queue in queues
        }
        self.template("worker", instances, unit)

    def full_text(self) -> None:
        """The updater of the full-text index; several at once share the work."""
        unit = {
            "description": "Full-text search updater",
            "exec": systemd_exec(self.command(self.contract["commands"]["fts"])),
            "direct": True,
            "memory": self.memory["fts"],
            "writable": [],
        }
        self.add("zulip-fts.service", "unit.service.j2", _restart(["zulip-fts.service"]), unit=unit)

    def singletons(self, singletons: Iterable[Mapping[str, Any]]) -> None:
        """What runs once on the whole site."""
        unit = {
            "description": "%i, once on the whole site",
            "active": True,
            "direct": True,
            "lock": True,
            "writable": self.uploads,
        }
        instances = {}
        for entry in singletons:
            argv = [self.singleton, entry["name"], "--", *self.command(entry["command"])]
            instances[entry["name"]] = {
                "description": f"{entry['name']}, once on the whole site",
                "exec": systemd_exec(argv),
                "nice": entry["nice"],
                "memory": entry.get("memory", self.memory["singleton"]),
            }
        self.template("singleton", instances, unit)

    def crons(self, crons: Iterable[Mapping[str, Any]]) -> None:
        """What runs at set times."""
        for cron in crons:
            argv = self.command(cron["command"])
            if cron["once"]:
                argv = [self.singleton, "--skip-if-held", f"cron-{cron['name']}", "--", *argv]
            unit = {
                "description": cron["description"],
                "exec": systemd_exec(argv),
                "oneshot": True,
                "active": cron["once"],
                "direct": True,
                "lock": cron["once"],
                "nice": cron.get("nice", 15),
                "timeout": cron.get("timeout", "1h"),
                "memory": cron.get("memory", self.memory["cron"]),
                "writable": self.uploads,
            }
            name = f"zulip-cron-{cron['name']}"
            # The next run starts with what is new; one that runs is left to end.
            self.add(f"{name}.service", "unit.service.j2", [], unit=unit)
            self.add(f"{name}.timer", "cron.timer.j2", _restart([f"{name}.timer"]), cron=cron)


def application_unit_files(
    contract: Mapping[str, Any],
    ports: Iterable[int],
    queues: Iterable[Mapping[str, Any]],
    memory: Mapping[str, Any],
    values: Mapping[str, Any],
    singleton: str,
    home: str,
    uploads: str,
) -> list[dict[str, Any]]:
    """Return every unit file of the application, in the form that `managed_files` takes."""
    ports, queues = list(ports), list(queues)
    units = application_units(ports, queues, contract["singletons"], contract["crons"], "fts" in contract["commands"])
    files = _UnitFiles(contract, memory, values, singleton, home, uploads)
    files.add("zulip.target", "zulip.target.j2", [])
    files.add("zulip.target.d/50-instances.conf", "instances.conf.j2", [], units=units["always"])
    files.add("zulip-active.target", "zulip-active.target.j2", [])
    # Where the target is active, what is new in it has to start.
    active = ["restart:zulip-active.target"]
    files.add("zulip-active.target.d/50-instances.conf", "instances.conf.j2", active, units=units["active"])
    files.django()
    files.tornado(ports)
    files.workers(queues)
    if "fts" in contract["commands"]:
        files.full_text()
    files.singletons(contract["singletons"])
    files.crons(contract["crons"])
    return files.files


def removed_units(files: Mapping[str, str]) -> list[str]:
    """Return the units whose own file `managed_files` removed: they run on until somebody stops them."""
    result = []
    for path, state in files.items():
        folder, _, name = path.rpartition("/")
        if state != "removed" or not path.startswith(f"{SYSTEM}/"):
            continue
        if folder == SYSTEM and "@." not in name:
            result.append(name)
        elif name == "50-instance.conf":
            result.append(folder.rpartition("/")[2].removesuffix(".d"))
    return sorted(result)


def nginx_snippet_files(
    snippets: Iterable[Mapping[str, Any]], level: str, effects: Iterable[str]
) -> list[dict[str, Any]]:
    """Return the files of an operator's snippets, `[{name, content}]`, in the form that `managed_files` takes.

    level: `http` or `server`, where nginx reads them.
    """
    files = []
    for snippet in snippets:
        if not UNIT_NAME.fullmatch(snippet["name"]):
            raise AnsibleFilterError(
                f"nginx_{level}_snippets: {snippet['name']!r} is not a name: "
                "letters, digits, dots, dashes and underscores"
            )
        files.append(
            {
                "path": f"/etc/nginx/zulip-ha/{level}.d/{snippet['name']}.conf",
                "content": snippet["content"].rstrip("\n") + "\n",
                "effects": list(effects),
                "variable": f"nginx_{level}_snippets",
            }
        )
    return files


class FilterModule:
    """Filters of the application's contract."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "python_literal": python_literal,
            "python_assignments": python_assignments,
            "ini_sections": ini_sections,
            "contract_command": contract_command,
            "systemd_exec": systemd_exec,
            "by_memory": by_memory,
            "tornado_ports": tornado_ports,
            "tornado_sharding": tornado_sharding,
            "sharding_json": sharding_json,
            "application_units": application_units,
            "application_unit_files": application_unit_files,
            "removed_units": removed_units,
            "nginx_snippet_files": nginx_snippet_files,
        }
