"""managed_units against a systemctl of our own on the PATH."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from library import managed_units

SYSTEMCTL = """#!{python}
import json, sys
path = {path!r}
host = json.load(open(path))
verb, names = sys.argv[1], [word for word in sys.argv[2:] if not word.startswith("-")]
status = 0
if verb == "show":
    absent = {{"LoadState": "not-found", "ActiveState": "inactive", "SubState": "dead"}}
    print("\\n\\n".join("\\n".join(k + "=" + v for k, v in host["units"].get(name, absent).items()) for name in names))
else:
    host["calls"].append(" ".join([verb, *names]))
    if verb == "daemon-reload":
        host["units"].update(host.pop("new", {{}}))
    for name in names:
        unit = host["units"][name]
        if verb in ("enable", "disable"):
            unit["UnitFileState"] = verb + "d"
        elif verb in ("start", "restart") and unit.get("Skip"):
            unit.update(ConditionResult="no", ConditionTimestampMonotonic="5")
        elif verb in ("start", "restart") and "Broken" in unit:
            unit.update(ActiveState="failed", Result="exit-code")
            status = 1
        elif verb == "restart" and "Stopped" in unit:
            # A slow one is killed by whoever stops it.
            killed = {{"ActiveState": "failed", "Result": "signal"}}
            unit.update({{"ActiveState": "inactive"}} if unit["Stopped"] == "yes" else killed)
            status = 1
        elif verb in ("start", "restart", "stop", "reset-failed"):
            unit["ActiveState"] = "active" if verb in ("start", "restart") else "inactive"
json.dump(host, open(path, "w"))
if status:
    print("Job for a unit failed.", file=sys.stderr)
sys.exit(status)
"""
JOURNALCTL = "#!/bin/sh\necho the journal of $4\n"


def unit(active: str = "active", enabled: str = "enabled", **more: str) -> dict[str, str]:
    common = {"LoadState": "loaded", "Type": "notify", "Result": "success", "NeedDaemonReload": "no"}
    return {**common, "ActiveState": active, "SubState": "running", "UnitFileState": enabled, **more}


class Host:
    def __init__(self, base: Path, capture: Any) -> None:
        self.path, self.state, self.capture = base / "host.json", base / "state", capture
        for name, text in (
            ("systemctl", SYSTEMCTL.format(python=sys.executable, path=str(self.path))),
            ("journalctl", JOURNALCTL),
        ):
            (base / name).write_text(text)
            (base / name).chmod(0o755)

    def has(self, new: dict[str, Any] | None = None, **units: dict[str, str]) -> None:
        named = {name if "." in name else name + ".service": value for name, value in units.items()}
        self.path.write_text(json.dumps({"units": named, "calls": [], "new": new or {}}))

    @property
    def calls(self) -> list[str]:
        return json.loads(self.path.read_text())["calls"]

    def run(self, check: bool = False, **params: Any) -> dict[str, Any]:
        ledgers = {} if "owed_by" in params else {"role": "demo"}
        args = {**ledgers, "state_dir": str(self.state), "_ansible_check_mode": check, **params}
        with patch_module_args(args), pytest.raises(SystemExit):
            managed_units.main()
        return json.loads(self.capture.readouterr().out)

    def owe(self, *effects: str) -> None:
        from ansible.module_utils.managed_ledger import Ledger

        ledger = Ledger(str(self.state), "demo")
        ledger.owe(effects)
        ledger.save()

    @property
    def owed(self) -> list[str]:
        from ansible.module_utils.managed_ledger import Ledger

        return Ledger(str(self.state), "demo").owed


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Host:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    made = Host(tmp_path, capsys)
    assert (tmp_path / "systemctl").stat().st_mode & stat.S_IXUSR
    return made


@pytest.fixture
def both(host: Host) -> Callable[..., dict[str, Any]]:
    """A real run that a dry run has to have predicted, without a call."""

    def run(**params: Any) -> dict[str, Any]:
        predicted = host.run(check=True, **params)
        assert host.calls == []
        real = host.run(**params)
        keys = ("changed", "enabled", "started", "restarted", "reloaded", "stopped", "daemon_reload")
        assert {key: predicted[key] for key in keys} == {key: real[key] for key in keys}
        return real

    return run


def test_converged_is_no_change_and_no_call(host, both):
    host.has(a=unit(), b=unit(enabled="static"), c=unit(enabled="disabled"), d=unit(enabled="generated"))
    result = both(units=["a.service", "b.service", "d.service"], started=["c.service"], stopped=["gone.service"])
    assert not result["changed"]
    assert host.calls == []


def test_enables_and_starts_with_one_call_each(host, both):
    host.has(a=unit("inactive", "disabled"), b=unit("inactive", "disabled"), c=unit("inactive", "disabled"))
    result = both(units=["a.service", "b.service"], started=["c.service"])
    assert host.calls == ["enable a.service b.service", "start a.service b.service c.service"]
    assert (result["enabled"], result["started"]) == (
        ["a.service", "b.service"],
        ["a.service", "b.service", "c.service"],
    )
    assert not host.run(units=["a.service", "b.service"], started=["c.service"])["changed"]


def test_restart_beats_reload_and_settles(host, both):
    host.has(a=unit(), b=unit())
    effects = ["daemon-reload", "restart:a.service", "reload:a.service", "reload:b.service", "word"]
    host.owe(*effects)
    result = both(units=["a.service", "b.service"], effects=effects)
    assert host.calls == ["daemon-reload", "restart a.service", "reload b.service"]
    assert (result["restarted"], result["reloaded"]) == (["a.service"], ["b.service"])
    assert host.owed == ["word"]


def test_what_is_held_stays_owed_until_somebody_settles_it(host, both):
    host.has(a=unit(), b=unit(), c=unit("inactive"))
    effects = ["restart:a.service", "reload:a.service", "reload:b.service", "restart:c.service"]
    host.owe(*effects)
    result = both(units=["a.service", "b.service", "c.service"], effects=effects, hold=True)
    assert host.calls == ["start c.service"]
    assert result["held"] == ["a.service"]
    assert result["changed"]
    assert host.owed == effects[:3]
    assert host.run(units=["b.service"], effects=["reload:b.service"], hold=True)["reloaded"] == ["b.service"]
    host.owe("reload:b.service")
    host.has(a=unit(), b=unit())
    assert host.run(owed_by=["demo", "other"], hold=True)["held"] == ["a.service"]
    assert both(owed_by=["demo", "other"])["restarted"] == ["a.service"]
    assert host.owed == []
    assert not host.run(owed_by=["demo", "other"])["changed"]
    assert not (host.state / "managed/other.json").exists()


def test_just_started_is_not_restarted(host, both):
    host.has(a=unit("inactive"))
    host.owe("restart:a.service")
    result = both(units=["a.service"], effects=["restart:a.service"])
    assert host.calls == ["start a.service"]
    assert result["restarted"] == []
    assert host.owed == []


def test_unlisted_units_only_when_active(host, both):
    host.has(a=unit(), b=unit("inactive"))
    host.owe("restart:a.service", "restart:b.service", "reload:gone.service")
    result = both(effects=["restart:a.service", "restart:b.service", "reload:gone.service"])
    assert host.calls == ["restart a.service"]
    assert result["changed"]
    assert host.owed == []


def test_reloads_the_manager_when_a_unit_asks_for_it(host, both):
    host.has(a=unit(NeedDaemonReload="yes"))
    assert both(units=["a.service"])["daemon_reload"]
    assert host.calls == ["daemon-reload"]


def test_unit_that_appears_with_the_reload(host, both):
    host.has(new={"a.service": unit("inactive", "disabled")})
    both(units=["a.service"], effects=["daemon-reload", "restart:a.service"])
    assert host.calls == ["daemon-reload", "enable a.service", "start a.service"]


def test_failed_unit_is_reset_and_started(host, both):
    host.has(a=unit("failed"))
    assert both(units=["a.service"])["started"] == ["a.service"]
    assert host.calls == ["reset-failed a.service", "start a.service"]


def test_stops_and_disables(host, both):
    host.has(a=unit(), b=unit("inactive", "enabled"), c=unit("inactive", "disabled"))
    result = both(
        stopped=["a.service", "b.service", "c.service", "gone.service"],
        effects=["restart:a.service"],
    )
    assert result["stopped"] == ["a.service", "b.service"]
    assert host.calls == ["disable a.service b.service", "stop a.service b.service"]


def test_one_shot_that_ran_and_unit_whose_condition_fails(host):
    ran = unit("inactive", Type="oneshot", RemainAfterExit="no", ExecMainExitTimestampMonotonic="7")
    host.has(a=ran, b=unit("inactive", Skip="yes"))
    for _ in range(2):
        assert not host.run(units=["a.service", "b.service"])["changed"]
    assert set(host.calls) == {"start b.service"}
    assert not host.run(check=True, units=["a.service", "b.service"])["changed"]


def test_instances_of_templates(host, both):
    host.has(**{"x@y.service": unit("inactive", "indirect"), "z": unit(enabled="indirect")})
    both(units=["x@y.service", "z.service"])
    assert host.calls == ["enable x@y.service", "start x@y.service"]


def test_missing_and_masked_units(host):
    host.has(b={"LoadState": "masked", "ActiveState": "inactive"})
    result = host.run(units=["a.service"], started=["b.service"])
    assert result["failed"]
    assert "a.service does not exist" in result["msg"]
    assert "systemctl unmask b.service" in result["msg"]
    predicted = host.run(check=True, units=["a.service"], started=["b.service"])
    assert predicted["started"] == ["a.service", "b.service"]
    assert host.calls == []


@pytest.mark.parametrize(
    ("active", "verb", "effects"), [("inactive", "start", []), ("active", "restart", ["restart:a.service"])]
)
def test_failure_tells_result_and_journal_and_keeps_the_debt(host, active, verb, effects):
    host.has(a=unit(active, Broken="yes"), b=unit(active))
    host.owe("restart:a.service")
    result = host.run(units=["a.service", "b.service"], effects=effects)
    assert result["failed"]
    assert f"systemctl {verb} a.service" in result["msg"]
    assert "a.service: failed/running, result exit-code" in result["msg"]
    assert "the journal of --unit=a.service" in result["msg"]
    assert "journal of --unit=b.service" not in result["msg"]
    assert host.owed == ["restart:a.service"]


def test_a_unit_whose_file_was_removed_is_stopped(host):
    host.has(a=unit(enabled="", LoadState="not-found"), b=unit())
    result = host.run(units=["b.service"], effects=["daemon-reload", "restart:a.service"])
    assert not result.get("failed"), result
    assert host.calls == ["daemon-reload", "stop a.service"]


@pytest.mark.parametrize("how", ["yes", "killed"])
def test_a_unit_that_somebody_else_stopped_meanwhile_is_no_failure(host, how):
    host.has(a=unit(Stopped=how), b=unit(Stopped=how))
    host.owe("restart:a.service")
    assert not host.run(effects=["restart:a.service"]).get("failed")
    assert host.owed == []
    assert host.run(units=["b.service"], effects=["restart:b.service"])["failed"]


def test_service_that_falls_over_after_its_start(host):
    host.has(a=unit("inactive", SubState="auto-restart"))
    host.path.write_text(host.path.read_text())
    result = host.run(units=["a.service"])
    assert "started, and fell over: a.service" in result["msg"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"units": ["redis"]}, "not the full name of a unit"),
        ({"effects": ["restart:zulip-*.service"]}, "not the full name of a unit"),
        ({"units": ["a.service"], "stopped": ["a.service"]}, "both started and stopped"),
    ],
)
def test_wrong_names(host, params, words):
    host.has()
    assert words in host.run(**params)["msg"]


def test_no_systemd_yet(host):
    host.path.write_text("no JSON: systemctl fails")
    assert host.run(check=True, units=["a.service"])["started"] == ["a.service"]
    assert "systemctl show" in host.run(units=["a.service"])["msg"]
