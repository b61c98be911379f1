"""systemd units of an application, made from its plan (plan.py)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

from .commands import contract_command, sized, systemd_exec

SYSTEM = "/etc/systemd/system"
SECRETS = "/etc/zulip-ha/app"
"""Folder of the files that hand one secret to one service."""
UNIT_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def _check_unit_names(entries: Iterable[Mapping[str, Any]], what: str) -> None:
    """Refuse a name that would not be one unit's."""
    for entry in entries:
        if not UNIT_NAME.fullmatch(entry["name"]):
            raise AnsibleFilterError(
                f"{what}: {entry['name']!r} is not a name for a unit: letters, digits, dots, dashes and underscores"
            )


def _instances(queues: Iterable[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any], int]]:
    """Return the workers, one process each: the instance's name, its queue, its number from 1."""
    return [
        (queue["name"] if number == 1 else f"{queue['name']}.{number}", queue, number)
        for queue in queues
        for number in range(1, int(queue.get("workers", 1)) + 1)
    ]


def application_units(plan: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the application's units: `always` on each host, `active` on the active one, and both together as `all`."""
    for what in ("queues", "services", "singletons", "crons"):
        _check_unit_names(plan[what], what)
    always = ["zulip-django.service"]
    always += [f"zulip-tornado@{port}.service" for port in plan["ports"]]
    if plan["threads"]:
        always.append("zulip-workers.service")
    else:
        always += [f"zulip-worker@{name}.service" for name, _, _ in _instances(plan["queues"])]
    always += ["zulip-fts.service"] if plan["full_text"] else []
    always += [f"zulip-{service['name']}.service" for service in plan["services"]]
    always += [f"zulip-cron-{cron['name']}.timer" for cron in plan["crons"] if not cron["once"]]
    active = [f"zulip-singleton@{singleton['name']}.service" for singleton in plan["singletons"]]
    active += [f"zulip-cron-{cron['name']}.timer" for cron in plan["crons"] if cron["once"]]
    return {"always": always, "active": active, "all": always + active}


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
        secrets: Mapping[str, Any],
        programs: Mapping[str, Any],
        singleton: str,
        home: str,
        uploads: str,
    ):
        self.contract = contract
        self.memory = memory
        self.values = {"event_address": contract.get("event_address", "127.0.0.1"), **values}
        self.secrets = secrets
        self.programs = programs
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

    def prepared(self, options: Iterable[str], argv: Sequence[str], **values: Any) -> list[str]:
        """Fill a command, and let the program app_run run it where it is a script of the release's Python."""
        if argv[0] == "{python}":
            argv = [argv[0], "{app_run}", *options, *argv[1:]]
        return self.command(argv, **values)

    def django(self, processes: int) -> None:
        """The Django server."""
        unit = {
            "description": "Django",
            "early": True,
            "exec": systemd_exec(self.command(self.contract["commands"]["django"])),
            # One worker after the other, so that no request fails; not for ever, should nobody read the pipe.
            "reload": f"/usr/bin/timeout 5 /bin/sh -c 'echo c > {self.sockets}/uwsgi-control'",
            "type": self.contract["django"]["type"],
            "nice": self.contract["django"]["nice"],
            "kill_signal": self.contract["django"]["kill_signal"],
            "memory": sized(self.memory["django"], processes),
            "writable": [self.sockets, *self.uploads],
        }
        if health := self.contract.get("nginx", {}).get("health"):
            # A worker loads much of the application with its first request, which is not to be a user's.
            unit["warm_up"] = f"http://127.0.0.1{health}?[1-{2 * processes}]"
        self.add("zulip-django.service", "unit.service.j2", _restart(["zulip-django.service"]), unit=unit)

    def template(
        self, name: str, instances: Mapping[str, Mapping[str, Any]], unit: Mapping[str, Any], also: Iterable[str] = ()
    ) -> None:
        """A template, with a file for each instance. also: effects of a change of the template."""
        units = {instance: f"zulip-{name}@{instance}.service" for instance in instances}
        unit = {**unit, "template": f"zulip-{name}"}
        self.add(f"zulip-{name}@.service", "unit.service.j2", [*_restart(units.values()), *also], unit=unit)
        for instance, own in instances.items():
            self.add(
                f"{units[instance]}.d/50-instance.conf", "instance.conf.j2", _restart([units[instance]]), instance=own
            )

    def tornado(self, ports: Iterable[int]) -> None:
        """The event servers."""
        unit = {
            "description": "Tornado at port %i",
            "early": True,
            "exec": systemd_exec(
                self.prepared(["--gone={adopting}"], self.contract["commands"]["tornado"], port="%i"), ["%i"]
            ),
            "writable": [self.dumps],
        }
        instances = {
            str(port): {"description": f"Tornado at port {port}", "memory": sized(self.memory["tornado"], 1)}
            for port in ports
        }
        # HAProxy can take the ports at 127.0.0.1 once a Tornado that had them has left.
        self.template("tornado", instances, unit, ["reload:haproxy.service"])

    def workers(self, queues: Iterable[Mapping[str, Any]]) -> None:
        """The queue workers, a process each."""
        commands = self.contract["commands"]
        unit = {
            "description": "Worker of the queue %i",
            "early": True,
            "exec": systemd_exec(self.prepared(["--broker"], commands["worker"], queue="%i"), ["%i"]),
            "nice": self.contract["worker"]["nice"],
            "writable": self.uploads,
        }
        instances: dict[str, dict[str, Any]] = {}
        for name, queue, number in _instances(queues):
            own: dict[str, Any] = {
                "description": f"Worker of the queue {queue['name']}" + (f", number {number}" if number > 1 else ""),
                "memory": sized(queue.get("memory", self.memory["worker"]), 1),
            }
            if number > 1:
                argv = commands.get("worker_more", commands["worker"])
                own["exec"] = systemd_exec(self.prepared(["--broker"], argv, queue=queue["name"], number=str(number)))
                # The template has a command already, and a service of this type takes one.
                own["exec_reset"] = True
            instances[name] = own
        self.template("worker", instances, unit)

    def one_worker(self, queues: Iterable[Mapping[str, Any]]) -> None:
        """One process for all queues."""
        names = [queue["name"] for queue in queues]
        unit = {
            "description": "Workers of all queues",
            "early": True,
            "exec": systemd_exec(self.prepared(["--broker"], self.contract["commands"]["workers"], queues=names)),
            "environment": self.contract["worker"].get("one_process_environment", {}),
            "nice": self.contract["worker"]["nice"],
            "memory": sized(self.memory["workers"], 1),
            "writable": self.uploads,
        }
        self.add("zulip-workers.service", "unit.service.j2", _restart(["zulip-workers.service"]), unit=unit)

    def full_text(self) -> None:
        """The updater of the full-text index; several at once share the work."""
        unit = {
            "description": "Full-text search updater",
            "exec": systemd_exec(self.command(self.contract["commands"]["fts"])),
            "direct": True,
            "memory": sized(self.memory["fts"], 1),
            "writable": [],
        }
        self.add("zulip-fts.service", "unit.service.j2", _restart(["zulip-fts.service"]), unit=unit)

    def service(self, service: Mapping[str, Any]) -> None:
        """One of the services that the release brings besides."""
        name = f"zulip-{service['name']}.service"
        environment = dict(service.get("environment", {}))
        folder = ""
        if program := service.get("program"):
            # By checksum: another program is another path, and so another unit.
            folder = f"{self.values['programs']}/{program}-{self.programs[program]['sha256'][:12]}"
            environment |= {"PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin"}
        unit: dict[str, Any] = {
            "description": service["description"],
            "early": True,
            "exec": systemd_exec(self.command(service["command"], program=f"{folder}/{service.get('program')}")),
            "environment": environment,
            "privileged_port": service.get("privileged_port", False),
            "memory": sized(service.get("memory", self.memory["service"]), 1),
            "writable": self.uploads if service.get("writable_uploads") else [],
        }
        if secrets := service.get("secret_environment"):
            path = f"{SECRETS}/{service['name']}.env"
            unit["environment_file"] = path
            lines = [f"{variable}={self.secrets.get(secret, '')}\n" for variable, secret in sorted(secrets.items())]
            entry = {"path": path, "content": "".join(lines), "mode": "0600", "sensitive": True}
            self.files.append({**entry, "effects": _restart([name]), "variable": "zulip_secrets"})
        self.add(name, "unit.service.j2", _restart([name]), unit=unit)

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
                "memory": sized(entry.get("memory", self.memory["singleton"]), 1),
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
                "memory": sized(cron.get("memory", self.memory["cron"]), 1),
                "writable": self.uploads,
            }
            name = f"zulip-cron-{cron['name']}"
            # The next run starts with what is new; one that runs is left to end.
            self.add(f"{name}.service", "unit.service.j2", [], unit=unit)
            self.add(f"{name}.timer", "cron.timer.j2", _restart([f"{name}.timer"]), cron=cron)


def application_unit_files(
    plan: Mapping[str, Any],
    contract: Mapping[str, Any],
    memory: Mapping[str, Any],
    values: Mapping[str, Any],
    secrets: Mapping[str, Any],
    singleton: str,
    home: str,
    uploads: str,
) -> list[dict[str, Any]]:
    """Return every unit file of the application, in the form that `managed_files` takes."""
    units = application_units(plan)
    files = _UnitFiles(contract, memory, values, secrets, plan["programs"], singleton, home, uploads)
    files.add("zulip.target", "zulip.target.j2", [])
    files.add("zulip.target.d/50-instances.conf", "instances.conf.j2", [], units=units["always"])
    files.add("zulip-active.target", "zulip-active.target.j2", [])
    # Where the target is active, what is new in it has to start.
    active = ["restart:zulip-active.target"]
    files.add("zulip-active.target.d/50-instances.conf", "instances.conf.j2", active, units=units["active"])
    files.django(plan["processes"])
    files.tornado(plan["ports"])
    if plan["threads"]:
        files.one_worker(plan["queues"])
    else:
        files.workers(plan["queues"])
    if plan["full_text"]:
        files.full_text()
    for service in plan["services"]:
        files.service(service)
    files.singletons(plan["singletons"])
    files.crons(plan["crons"])
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
