#!/usr/bin/python
"""Bring a role's systemd units to the state that its files ask for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: managed_units
short_description: Enable, start, stop, restart and reload a role's units, as far as needed
description:
  - Reads the state of all units with one call, computes the difference and acts with one C(systemctl) call for each
    verb.
  - Applies the effects that M(managed_files) returned, and takes what it applied off the role's ledger. Words that
    are not
    C(daemon-reload), C(restart:UNIT) or C(reload:UNIT) stay owed.
  - A restart beats a reload, and a unit that this call starts is neither restarted nor reloaded.
  - An effect on a unit that is neither in O(units) nor in O(started) is applied if that unit is active.
  - A unit that failed is reset and started.
  - Units that cannot be enabled (static, generated, alias) are left as they are.
options:
  role:
    description: The ledger whose effects are settled.
    type: str
  owed_by:
    description:
      - In place of O(role) and O(effects). What these ledgers still owe is applied, as O(hold) kept it.
    type: list
    elements: str
    default: []
  hold:
    description:
      - Keep running units from being restarted. The restart stays owed, with the reloads beside it. RV(held) names it.
      - For a host that serves. Whoever comes later with O(owed_by) restarts them when it does not.
    type: bool
    default: false
  units:
    description: Units to be enabled and running. Names with their suffix; instances of templates are fine.
    type: list
    elements: str
    default: []
  started:
    description: Units to be running, whether enabled or not.
    type: list
    elements: str
    default: []
  stopped:
    description: Units to be disabled and stopped, if they are there.
    type: list
    elements: str
    default: []
  effects:
    description: What is owed, as M(managed_files) returned it.
    type: list
    elements: str
    default: []
  state_dir:
    description: Directory of the ledgers on the host.
    type: path
    default: /var/lib/zulip-ha
attributes:
  check_mode:
    description: Predicts. A unit that is not there yet counts as one that will be.
    support: full
notes:
  - A one-shot unit without C(RemainAfterExit) counts as started once it ran well since boot, and a unit whose
    condition does not hold is tried
    each time, but is no change.
  - After a failure everything is still owed, so that the next run goes on.
author: zulip-ha
"""

EXAMPLES = r"""
- name: Redis | Bring the service to its configuration
  managed_units:
    role: redis
    units: [redis-server.service]
    effects: "{{ __redis_files.effects }}"

- name: App | Stop what another release had
  managed_units:
    role: app
    units: [zulip.target]
    started: ["zulip-tornado@9800.service"]
    stopped: ["zulip-tornado@9801.service"]
"""

RETURN = r"""
enabled:
  description: Units that were enabled.
  returned: success
  type: list
  elements: str
started:
  description: Units that were started.
  returned: success
  type: list
  elements: str
restarted:
  description: Units that were restarted.
  returned: success
  type: list
  elements: str
reloaded:
  description: Units that were reloaded.
  returned: success
  type: list
  elements: str
held:
  description: Units that would have been restarted, and were not because of O(hold).
  returned: success
  type: list
  elements: str
stopped:
  description: Units that were stopped or disabled.
  returned: success
  type: list
  elements: str
daemon_reload:
  description: Whether systemd read its units again.
  returned: success
  type: bool
settled:
  description: Effects that were taken off the ledger.
  returned: success
  type: list
  elements: str
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule

STATE_DIR = "/var/lib/zulip-ha"
PROPERTIES = (
    "Id,LoadState,LoadError,ActiveState,SubState,UnitFileState,NeedDaemonReload,Result,Type,RemainAfterExit,"
    "ConditionResult,ConditionTimestampMonotonic,ExecMainExitTimestampMonotonic"
)
UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(service|socket|target|timer|path|mount|automount|slice|swap|device|scope)")
RUNNING = ("active", "reloading", "refreshing")
JOURNAL_LINES = 20


class UnitError(Exception):
    """Told to the operator in its own words."""


@dataclass(frozen=True)
class Unit:
    name: str
    properties: Mapping[str, str]

    def get(self, key: str) -> str:
        return self.properties.get(key, "")

    @property
    def there(self) -> bool:
        return self.get("LoadState") == "loaded"

    @property
    def gone(self) -> bool:
        """systemd has seen that its file is no more."""
        return self.get("LoadState") == "not-found"

    @property
    def running(self) -> bool:
        # An automatic restart is under way only because the last start failed.
        return self.get("ActiveState") in RUNNING or (
            self.get("ActiveState") == "activating" and self.get("SubState") != "auto-restart"
        )

    @property
    def failed(self) -> bool:
        return self.get("ActiveState") == "failed" or self.get("SubState") == "auto-restart"

    @property
    def done(self) -> bool:
        """A one-shot that ran well since boot and is not meant to remain."""
        ran = self.get("ExecMainExitTimestampMonotonic") not in ("", "0")
        return (
            self.get("Type") == "oneshot"
            and self.get("RemainAfterExit") == "no"
            and self.get("Result") == "success"
            and ran
        )

    @property
    def taken_away(self) -> bool:
        """Somebody stopped it: with systemctl, or by a signal where it was too slow for that."""
        killed = self.get("ActiveState") == "failed" and self.get("Result") == "signal"
        return killed or self.get("ActiveState") == "inactive"

    @property
    def unwanted_now(self) -> bool:
        """Its condition did not hold when it was last tried."""
        tried = self.get("ConditionTimestampMonotonic") not in ("", "0")
        return self.get("ActiveState") == "inactive" and self.get("ConditionResult") == "no" and tried

    @property
    def can_be_enabled(self) -> bool:
        """`indirect` of an instance: another one is enabled. Of anything else: there is nothing to enable."""
        state = self.get("UnitFileState")
        return state in ("disabled", "enabled-runtime") or (state == "indirect" and "@" in self.name)


@dataclass
class Plan:
    daemon_reload: bool = False
    stopped: list[str] = field(default_factory=list)
    enabled: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    reloaded: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    # Settled once the plan was carried out.
    settled: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return any(asdict(self).values())


# ---- the plan --------------------------------------------------------------------------------------------------------


def targets(effects: Iterable[str], verb: str) -> list[str]:
    return list(dict.fromkeys(effect.split(":", 1)[1] for effect in effects if effect.startswith(verb + ":")))


def parse_show(output: str, names: Sequence[str]) -> dict[str, Unit]:
    """`systemctl show` answers in blocks, one a name, in the order of the names."""
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in output.strip("\n").split("\n\n")
    ]
    if len(blocks) != len(names):
        raise UnitError(f"systemctl show answered for {len(blocks)} units instead of {len(names)}: {' '.join(names)}")
    return {name: Unit(name, blocks[number]) for number, name in enumerate(names)}


def make_plan(params: Mapping[str, Any], units: Mapping[str, Unit]) -> Plan:
    effects, listed = params["effects"], [*params["units"], *params["started"]]
    plan = Plan(
        daemon_reload="daemon-reload" in effects
        or any(unit.get("NeedDaemonReload") == "yes" for unit in units.values())
    )
    stop = [units[name] for name in params["stopped"] if units[name].there]
    plan.stopped = [
        unit.name for unit in stop if unit.get("ActiveState") not in ("inactive", "failed") or is_enabled(unit)
    ]
    # Their files were removed: they run on until somebody stops them, and cannot be restarted.
    owed = dict.fromkeys([*targets(effects, "restart"), *targets(effects, "reload")])
    gone = [name for name in owed if units[name].running and units[name].gone and name not in listed]
    plan.stopped += [name for name in gone if name not in plan.stopped]
    plan.enabled = [name for name in params["units"] if units[name].can_be_enabled or not units[name].there]
    plan.started = [name for name in dict.fromkeys(listed) if not (units[name].running or units[name].done)]

    def due(name: str) -> bool:
        return name not in plan.started and name not in plan.stopped and units[name].running

    plan.restarted = [name for name in targets(effects, "restart") if due(name)]
    plan.reloaded = [name for name in targets(effects, "reload") if due(name) and name not in plan.restarted]
    plan.settled = [
        effect for effect in effects if effect == "daemon-reload" or effect.startswith(("restart:", "reload:"))
    ]
    if params["hold"]:
        plan.held, plan.restarted = plan.restarted, []
        if plan.held:
            # What is reloaded belongs to the same change.
            plan.reloaded = []
            plan.settled = [effect for effect in plan.settled if effect.partition(":")[2] in ("", *plan.started)]
    return plan


def is_enabled(unit: Unit) -> bool:
    return unit.get("UnitFileState") in ("enabled", "enabled-runtime")


def missing(params: Mapping[str, Any], units: Mapping[str, Unit]) -> list[str]:
    """What keeps wanted units from being loaded, one phrase each."""
    phrases = {
        "not-found": "{0} does not exist (is its package installed, and its unit file rendered?)",
        "masked": "{0} is masked (systemctl unmask {0})",
    }
    wanted = (units[name] for name in dict.fromkeys([*params["units"], *params["started"]]))
    return [
        phrases.get(unit.get("LoadState"), "{0} cannot be loaded: {1}").format(unit.name, unit.get("LoadError"))
        for unit in wanted
        if not unit.there
    ]


def names_of(params: Mapping[str, Any]) -> list[str]:
    listed = [*params["units"], *params["started"], *params["stopped"]]
    return list(dict.fromkeys([*listed, *targets(params["effects"], "restart"), *targets(params["effects"], "reload")]))


def check_names(params: Mapping[str, Any]) -> None:
    wrong = [name for name in names_of(params) if not UNIT.fullmatch(name)]
    if wrong:
        raise UnitError(f"not the full name of a unit, with its suffix: {', '.join(wrong)}")
    both = sorted(set(params["stopped"]) & {*params["units"], *params["started"]})
    if both:
        raise UnitError(f"to be both started and stopped: {', '.join(both)}")


# ---- acting ----------------------------------------------------------------------------------------------------------


class Systemd:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def call(self, *arguments: str) -> str:
        """Run systemctl; returns the complaint, empty when all is well."""
        status, output, complaint = self.module.run_command(
            ["systemctl", *arguments], environ_update={"LC_ALL": "C.UTF-8"}
        )
        return "" if status == 0 else (complaint or output).strip() or f"exit status {status}"

    def show(self, names: Sequence[str]) -> dict[str, Unit]:
        if not names:
            return {}
        status, output, complaint = self.module.run_command(
            ["systemctl", "show", "--property=" + PROPERTIES, "--", *names], environ_update={"LC_ALL": "C.UTF-8"}
        )
        if status == 0:
            return parse_show(output, names)
        if self.module.check_mode:
            # A host that is not up yet: nothing is there.
            return {name: Unit(name, {"LoadState": "not-found"}) for name in names}
        raise UnitError(f"systemctl show: {complaint.strip() or output.strip()}")

    def journal(self, name: str) -> str:
        _, output, _ = self.module.run_command(
            ["journalctl", "--no-pager", "--quiet", f"--lines={JOURNAL_LINES}", f"--unit={name}"]
        )
        return output.strip() or "(its journal is empty)"

    def act(self, verb: str, names: Sequence[str], borrowed: Iterable[str] = ()) -> None:
        """Run a verb on units.

        borrowed: those that somebody else starts and stops. One that was stopped in the same moment cancels our job,
        which is no failure: it starts on the new configuration next time.
        """
        if not names:
            return
        complaint = self.call(verb, "--", *names)
        if not complaint:
            return
        after = self.show(names)
        guilty = [unit for unit in after.values() if not unit.running]
        if guilty and all(unit.name in borrowed and unit.taken_away for unit in guilty):
            return
        guilty = guilty or list(after.values())
        raise UnitError(
            "\n".join([f"systemctl {verb} {' '.join(names)}: {complaint}", *(self.story(unit) for unit in guilty)])
        )

    def story(self, unit: Unit) -> str:
        state = f"{unit.get('ActiveState')}/{unit.get('SubState')}, result {unit.get('Result')}"
        return f"{unit.name}: {state}. Its last {JOURNAL_LINES} lines in the journal:\n{self.journal(unit.name)}"


def carry_out(systemd: Systemd, plan: Plan, params: Mapping[str, Any], units: Mapping[str, Unit]) -> None:
    systemd.act("disable", [name for name in plan.stopped if is_enabled(units[name])])
    systemd.act("stop", plan.stopped)
    systemd.act("enable", plan.enabled)
    systemd.act("reset-failed", [name for name in plan.started if units[name].failed])
    systemd.act("start", plan.started)
    borrowed = {*plan.restarted, *plan.reloaded} - {*params["units"], *params["started"]}
    systemd.act("restart", plan.restarted, borrowed)
    systemd.act("reload", plan.reloaded, borrowed)
    # A simple service counts as started before it falls over.
    after = systemd.show([*plan.started, *plan.restarted])
    broken = [unit for unit in after.values() if unit.failed and not (unit.name in borrowed and unit.taken_away)]
    if broken:
        raise UnitError("\n".join(f"started, and fell over: {systemd.story(unit)}" for unit in broken))
    plan.started = [name for name in plan.started if not after[name].unwanted_now]


def main() -> None:
    lists: dict[str, dict[str, Any]] = {
        name: {"type": "list", "elements": "str", "default": []} for name in ("units", "started", "stopped", "effects")
    }
    module = AnsibleModule(
        argument_spec={
            "role": {"type": "str"},
            "owed_by": {"type": "list", "elements": "str", "default": []},
            "hold": {"type": "bool", "default": False},
            **lists,
            "state_dir": {"type": "path", "default": STATE_DIR},
        },
        required_one_of=[("role", "owed_by")],
        mutually_exclusive=[("role", "owed_by"), ("effects", "owed_by")],
        supports_check_mode=True,
    )
    # Not at the top: programs that only read the options know nothing of our module utilities.
    from ansible.module_utils.managed_ledger import Ledger, ManagedError

    params, systemd = module.params, Systemd(module)
    try:
        ledgers = [Ledger(params["state_dir"], role) for role in params["owed_by"] or [params["role"]]]
        if params["owed_by"]:
            params["effects"] = list(dict.fromkeys(effect for ledger in ledgers for effect in ledger.owed))
        check_names(params)
        names = names_of(params)
        units = systemd.show(names)
        plan = make_plan(params, units)
        if not module.check_mode:
            if plan.daemon_reload:
                complaint = systemd.call("daemon-reload")
                if complaint:
                    raise UnitError(f"systemctl daemon-reload: {complaint}")
                units = systemd.show(names)
                plan = make_plan(params, units)
                plan.daemon_reload = True
            absent = missing(params, units)
            if absent:
                raise UnitError("; ".join(absent))
            carry_out(systemd, plan, params, units)
            applied, plan.settled = plan.settled, []
            for ledger in ledgers:
                plan.settled += [effect for effect in ledger.settle(applied) if effect not in plan.settled]
                if ledger.exists:
                    ledger.save()
        else:
            plan.started = [name for name in plan.started if not units[name].unwanted_now]
    except (UnitError, ManagedError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=plan.changed, **asdict(plan))


if __name__ == "__main__":
    main()
