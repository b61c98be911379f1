"""What runs on an app host: the contract of its release with the operator's choices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

WORKERS = ("auto", "processes", "threads")


def active_services(
    contract: Mapping[str, Any], options: Iterable[str], programs: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the services beside Django, Tornado and the workers that run.

    One that names an `option` runs where that is among `options`; one that names a `program`, where `programs` has it.
    """
    services = [dict(service) for service in contract.get("services", ())]
    options = list(options)
    offers = [*services, *contract.get("crons", ())]
    known = {
        "app_options": ({entry["option"] for entry in offers if "option" in entry}, options),
        "app_programs": ({service["program"] for service in services if "program" in service}, list(programs)),
    }
    for variable, (offered, wanted) in known.items():
        if strangers := sorted(set(wanted) - offered):
            has = ", ".join(sorted(offered)) or "none"
            raise AnsibleFilterError(f"{variable}: this release has no {', '.join(strangers)}; it knows {has}")
    return [
        service
        for service in services
        if ("option" not in service or service["option"] in options)
        and ("program" not in service or service["program"] in programs)
    ]


def _queues(contract: Mapping[str, Any], wanted: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the release's queues, with what the operator says of some of them."""
    queues = {queue["name"]: dict(queue) for queue in contract["queues"]}
    for queue in wanted:
        if queue["name"] not in queues:
            has = ", ".join(sorted(queues))
            raise AnsibleFilterError(f"app_queues: this release has no queue {queue['name']!r}; it has {has}")
        queues[queue["name"]] |= queue
    return [queues[name] for name in sorted(queues)]


def application_plan(
    contract: Mapping[str, Any],
    ports: Iterable[int],
    *,
    queues: Iterable[Mapping[str, Any]] = (),
    workers: str = "auto",
    options: Iterable[str] = (),
    programs: Mapping[str, Any] | None = None,
    memory_mb: float = 1024**2,
    cores: int = 1024,
    processes: int = 1,
) -> dict[str, Any]:
    """Decide what runs on one app host.

    contract: of one release. ports: Tornado's. queues: what the operator says of some, `{name, workers, memory}`.
    workers: `processes` is one process or more for each queue, `threads` one for all, `auto` goes by the host's
    `memory_mb` and `cores`, unless the operator sizes single queues. processes: Django's.
    """
    if workers not in WORKERS:
        raise AnsibleFilterError(f"app_workers is one of {', '.join(WORKERS)}, not {workers!r}")
    can = "workers" in contract["commands"]
    if workers == "threads" and not can:
        raise AnsibleFilterError("app_workers: this application has no process that works on all queues")
    queues, worker = list(queues), contract["worker"]
    sized = sorted(queue["name"] for queue in queues if {"workers", "memory"} & queue.keys())
    if workers == "threads" and sized:
        raise AnsibleFilterError(f"app_queues: {', '.join(sized)} cannot be sized where one process has all queues")
    small = memory_mb <= worker.get("one_process_up_to_mb", 0) or cores <= worker.get("one_process_up_to_cores", 0)
    threads = workers == "threads" or (workers == "auto" and can and small and not sized)
    return {
        "ports": list(ports),
        "queues": _queues(contract, queues),
        "threads": threads,
        "processes": processes,
        "services": active_services(contract, options, programs or {}),
        "programs": dict(programs or {}),
        "singletons": list(contract["singletons"]),
        "crons": [cron for cron in contract["crons"] if "option" not in cron or cron["option"] in options],
        "full_text": "fts" in contract["commands"],
    }
