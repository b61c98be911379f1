"""Whole runs of ansible-playbook: lock, phases, report, failure, a run that is killed, a host that does not answer."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
TASKS = ROOT / "playbooks/tasks"
KEY = "/zulip-ha/lab/run-lock"
GONE = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ssh", "ansible_ssh_retries": 0}


def include(name, **variables):
    return {"name": name, "ansible.builtin.include_tasks": str(TASKS / f"{name}.yml"), "vars": variables}


def shell(line):
    return {"name": "Do it", "ansible.builtin.shell": line}


class Controller:
    def __init__(self, base, etcd):
        self.base, self.etcd = base, etcd
        self.reports = base / "reports"
        # The app host does not answer, so that nothing is written outside of the test's folder.
        hosts = {
            "quorum": {"hosts": {"q1": GONE, "q2": {"ansible_connection": "local"}}},
            "app": {"hosts": {"a1": GONE}},
            "database": {"hosts": {"d1": GONE}},
        }
        more = {
            "site_name": "lab",
            "lease_etcd_endpoints": [etcd.url],
            "reports_directory": str(self.reports),
            "ansible_python_interpreter": sys.executable,
        }
        (base / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": hosts, "vars": more}}))

    def command(self, *plays, arguments=()):
        book = self.base / "play.yml"
        head = {"hosts": "q2", "gather_facts": False, "any_errors_fatal": True}
        book.write_text(yaml.safe_dump([{**head, "tasks": tasks} for tasks in plays], sort_keys=False))
        return [Path(sys.executable).with_name("ansible-playbook"), "-i", self.base / "hosts.yml", book, *arguments]

    def environment(self):
        configuration = {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "NO_COLOR": "1", "COLUMNS": "400"}
        return {**os.environ, **configuration, "ANSIBLE_SSH_RETRIES": "0"}

    def run(self, *plays, arguments=()):
        command = self.command(*plays, arguments=arguments)
        return subprocess.run(
            command, cwd=ROOT, env=self.environment(), capture_output=True, text=True, check=False, timeout=120
        )

    def report(self):
        (folder,) = self.reports.iterdir()
        return folder, json.loads((folder / "report.json").read_text())


@pytest.fixture
def controller(tmp_path, etcd):
    return Controller(tmp_path, etcd)


LOCK = include("lock", lock_verb="upgrade", report_facts={"from": "12.0", "to": "12.1"})
LOG_TOKEN = "https://iago:hunter22@example.com"


def managed(base, content):
    """A task of managed_files, the way a role has it."""
    item = {
        "path": str(base / "etc/a.conf"),
        "content": content,
        "owner": str(os.geteuid()),
        "group": str(os.getegid()),
    }
    return {"name": "Files", "managed_files": {"role": "demo", "state_dir": str(base / "state"), "files": [item]}}


def test_a_run_from_lock_to_report(controller):
    move = {"moves": [{"what": "app", "from": "app1", "to": "app2", "stall_seconds": 0.4}]}
    done = controller.run(
        [LOCK, include("phase", phase_name="prepare"), managed(controller.base, "x\n")],
        [include("phase", phase_name="prepare"), include("phase", phase_name="move", report_facts=move)],
        [
            include("phase", phase_name="move", phase_ends=True),
            shell("true"),
            include("report", report_message=f"see {LOG_TOKEN}"),
            include("unlock"),
        ],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder, report = controller.report()
    assert (report["result"], report["verb"], report["from"], report["site"]) == ("ok", "upgrade", "12.0", "lab")
    assert [phase["name"] for phase in report["phases"]] == ["prepare", "move"]
    assert all(phase["ended"] for phase in report["phases"])
    assert report["moves"] == move["moves"]
    assert report["hosts"] == ["q2"]
    assert report["changes"] == {"q2": [str(controller.base / "etc/a.conf")]}
    assert "hunter22" not in json.dumps(report) + (folder / "report.html").read_text()
    assert folder.name.endswith("Z-upgrade")
    assert "PHASE MOVE" in done.stdout
    assert controller.etcd.keys == {}
    # The one task that changed something is the site's, not the report's.
    assert "changed=2" in done.stdout


def test_a_second_run_is_refused_before_it_leaves_anything(controller):
    value = {"verb": "os_updates", "by": "desdemona@c2", "began": "2026-11-23T21:00:00Z", "machine": "other"}
    controller.etcd.leases[1] = 600
    encoded = base64.b64encode(json.dumps(value).encode()).decode()
    controller.etcd.put(base64.b64encode(KEY.encode()).decode(), encoded, 1)
    for arguments in ((), ("--check",)):
        done = controller.run([LOCK, shell(f"touch {controller.base}/touched")], arguments=arguments)
        assert done.returncode == 2
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]") and "another run" in line]
        assert "os_updates by desdemona@c2 since 2026-11-23T21:00:00Z" in line
        assert line.endswith("Nothing was changed")
        assert not controller.reports.exists()
    assert not (controller.base / "touched").exists()
    done = controller.run([LOCK, include("unlock")], arguments=("-e", "lock_take=true"))
    assert done.returncode == 0, done.stdout
    assert "taken from another run, as you asked: os_updates by desdemona@c2" in done.stdout + done.stderr


def test_a_killed_run_leaves_its_report_and_is_followed_at_once(controller):
    command = controller.command([LOCK, include("phase", phase_name="migrate"), shell("sleep 60")])
    process = subprocess.Popen(
        command, cwd=ROOT, env=controller.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and (controller.etcd.record(KEY) or {}).get("phase") != "migrate":
        time.sleep(0.1)
    while time.monotonic() < end and not list(controller.reports.glob("*/report.json")):
        time.sleep(0.1)
    refused = controller.run([LOCK])
    assert refused.returncode == 2
    assert f"(process {process.pid} there)" in refused.stdout
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, report = controller.report()
    assert (report["result"], report["phases"][0]["name"]) == ("unfinished", "migrate")
    done = controller.run([LOCK, include("unlock")])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The run before is dead, its lock is taken over: upgrade by " in done.stdout + done.stderr


def test_a_failure_ends_the_report_although_no_play_can(controller):
    failing = {"name": "Break", "ansible.builtin.fail": {"msg": f"<b>no</b> {LOG_TOKEN}"}}
    done = controller.run([LOCK, include("phase", phase_name="migrate")], [failing], [include("report")])
    assert done.returncode == 2
    folder, report = controller.report()
    assert (report["result"], report["phases"][0]["name"]) == ("failed", "migrate")
    assert report["message"] == "Break on q2: <b>no</b> https://***@example.com"
    assert "&lt;b&gt;no" in (folder / "report.html").read_text()
    assert f"Report: {folder}/report.html" in done.stdout


def test_in_an_always_the_report_says_what_the_verb_says(controller):
    block = {
        "name": "All",
        "block": [LOCK, {"name": "Break", "ansible.builtin.fail": {"msg": "no"}}],
        "rescue": [
            include("report", report_result="failed", report_message="{{ ansible_failed_result.msg }}"),
            include("unlock"),
            {"name": "Again", "ansible.builtin.fail": {"msg": "no"}},
        ],
    }
    done = controller.run([block])
    assert done.returncode == 2
    _, report = controller.report()
    assert (report["result"], report["message"]) == ("failed", "no")
    assert controller.etcd.keys == {}


def test_check_mode_writes_nothing(controller):
    done = controller.run(
        [LOCK, include("phase", phase_name="prepare"), include("report"), include("unlock")], arguments=("--check",)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PHASE PREPARE" in done.stdout
    assert not controller.reports.exists()
    assert controller.etcd.keys == {}


def test_without_a_run_a_phase_is_nothing(controller):
    done = controller.run([include("phase", phase_name="prepare"), include("report")])
    assert done.returncode == 0, done.stdout + done.stderr
    assert controller.etcd.calls == []


def test_without_any_quorum_host_nothing_begins(controller):
    hosts = yaml.safe_load((controller.base / "hosts.yml").read_text())
    hosts["all"]["children"]["quorum"]["hosts"] = {"q1": GONE}
    hosts["all"]["hosts"] = {"q2": {"ansible_connection": "local"}}
    (controller.base / "hosts.yml").write_text(yaml.safe_dump(hosts))
    done = controller.run([LOCK])
    assert done.returncode == 2
    assert "none of the quorum hosts answers (q1)" in done.stdout
    assert not controller.reports.exists()
    assert controller.run([include("unlock")]).returncode == 0
