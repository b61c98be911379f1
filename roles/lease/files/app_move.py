#!/usr/bin/python3
"""Hands the active role of this app host over to another one, without a failed request.

Order, on the host that is active:

1. nginx tells clients with each answer that the connection ends; the singletons stop; on the other app hosts Tornado
   stops as well, and loads the application anew: what happens from now on waits in their broker for the event queues
   that it is meant for; then connections that are idle are closed;
2. new connections to the virtual IP are held back (their SYN is dropped, so that clients send it again), long polls are
   told that nothing has happened, and what is being answered comes to its end;
3. the lease is given up; meanwhile Tornado stops, and its event queues and the notices that it had no time for go to
   the other app hosts, whose Tornado begins with them, so that no client has to register again;
4. the workers finish what this host's broker still has, and what they have to say follows; then Tornado starts again.

What holds clients back ends by itself, and `cleanup` (ExecStopPost) undoes the rest, however the program ended.

Commands: move, cleanup, receive (asked for by a peer), adopt (started when something was received).
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import io
import ipaddress
import json
import os
import pwd
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

CONFIG = "/etc/zulip-ha/move.json"
RUN_DIR = "/run/zulip-ha"
NOTICES = "notices.json"
COMING = b"COMING\n"
COMING_SECONDS = 45.0
"""How long event queues that were announced may take to come."""
TABLE = "zulip_ha_move"
ESTABLISHED, SYN_RECEIVED, CLOSE_WAIT = "01", "03", "08"


class MoveError(Exception):
    """Told to the operator in its own words."""


def log(message: str, level: int = 6) -> None:
    print(f"<{level}>{message}", flush=True)


def run(*command: str, timeout: float = 30, stdin: str = "", check: bool = True) -> str:
    """Run a command; an error is told in its own words."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MoveError(f"{' '.join(command[:3])}: {error}") from error
    if check and done.returncode:
        raise MoveError(f"{' '.join(command[:3])}: {done.stderr.strip() or done.stdout.strip() or done.returncode}")
    return done.stdout


def wait_until(condition: Any, seconds: float, pause: float = 0.02) -> bool:
    """Say whether it came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(pause)
    return True


# --- what holds clients back -----------------------------------------------------------------------------------------


def hold_rules(address: str, seconds: int) -> str:
    """nftables' rules that drop what opens a connection to an address; they end by themselves."""
    family, kind = ("ip", "ipv4_addr") if ipaddress.ip_address(address).version == 4 else ("ip6", "ipv6_addr")
    return f"""
table inet {TABLE} {{
    set held {{ type {kind}; flags timeout; elements = {{ {address} timeout {seconds}s }} }}
    chain input {{
        type filter hook input priority -200; policy accept;
        {family} daddr @held tcp dport {{ 80, 443 }} tcp flags & (syn | ack) == syn drop
    }}
}}
"""


def proc_address(address: str, port: int) -> str:
    """How /proc/net/tcp writes an address and a port."""
    packed = ipaddress.ip_address(address).packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def open_connections(address: str, table: Iterable[str]) -> int:
    """Count the connections of clients to the address. table: lines of /proc/net/tcp."""
    local = {proc_address(address, port) for port in (80, 443)}
    count = 0
    for line in table:
        fields = line.split()
        if len(fields) > 3 and fields[1] in local and fields[3] in (ESTABLISHED, SYN_RECEIVED, CLOSE_WAIT):
            count += 1
    return count


def connections(address: str) -> int:
    name = "/proc/self/net/tcp" if ipaddress.ip_address(address).version == 4 else "/proc/self/net/tcp6"
    with open(name, encoding="ascii") as table:
        return open_connections(address, table)


def workers(show_proc: str) -> list[int]:
    """The processes of HAProxy that serve, those of an old configuration among them, out of `show proc`."""
    rows = [line.split() for line in show_proc.splitlines()]
    return [int(row[0]) for row in rows if len(row) > 1 and row[0].isdigit() and row[1] == "worker"]


def haproxy(path: str, command: str) -> str:
    """One command to HAProxy's master."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(2)
        connection.connect(path)
        connection.sendall(command.encode() + b"\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer.decode(errors="replace")


# --- the broker ------------------------------------------------------------------------------------------------------


class Broker:
    """The few things that are asked of RabbitMQ, with one connection for each."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Any]:
        import pika  # only the verbs that need it have to find it

        settings = self.settings
        parameters = pika.ConnectionParameters(
            settings["host"],
            settings["port"],
            credentials=pika.PlainCredentials(settings["user"], settings["password"]),
            socket_timeout=2,
            blocked_connection_timeout=2,
        )
        try:
            connection = pika.BlockingConnection(parameters)
        except pika.exceptions.AMQPError as error:
            raise MoveError(f"RabbitMQ: {error or type(error).__name__}") from error
        try:
            yield connection
        finally:
            connection.close()

    def depth(self, queues: Iterable[str]) -> int:
        """How many messages wait in the queues; one that is not there has none."""
        import pika

        total = 0
        with self._connection() as connection:
            channel = connection.channel()
            for queue in queues:
                try:
                    total += channel.queue_declare(queue, passive=True).method.message_count
                except pika.exceptions.ChannelClosedByBroker:
                    channel = connection.channel()
        return total

    def take(self, queues: Iterable[str]) -> list[tuple[str, str]]:
        """Take the messages out of queues that nobody reads."""
        import pika

        taken = []
        with self._connection() as connection:
            channel = connection.channel()
            for queue in queues:
                try:
                    while (message := channel.basic_get(queue, auto_ack=True))[0] is not None:
                        taken.append((queue, message[2].decode()))
                except pika.exceptions.ChannelClosedByBroker:
                    channel = connection.channel()
        return taken

    def give(self, notices: Iterable[tuple[str, str]]) -> None:
        """Put messages into queues of the same names."""
        import pika

        with self._connection() as connection:
            channel = connection.channel()
            for queue, body in notices:
                channel.basic_publish("", queue, body.encode(), pika.BasicProperties(delivery_mode=2))


# --- the peers -------------------------------------------------------------------------------------------------------


class Peer:
    """A connection to another app host that waits for what there is to hand over."""

    def __init__(self, name: str, address: str, ssh: list[str]) -> None:
        self.name = name
        self.state = ""
        self.process = subprocess.Popen(
            [*ssh, address, "adopt-events"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def _line(self, seconds: float) -> str:
        """The next line that it says; nothing if that takes too long."""
        answers: list[bytes] = []
        output = self.process.stdout
        assert output
        reader = threading.Thread(target=lambda: answers.append(output.readline()), daemon=True)
        reader.start()
        reader.join(seconds)
        return (answers or [b""])[0].decode(errors="replace").strip()

    def ready(self, seconds: float) -> bool:
        """Whether it answered in time; `state` is what it says of its agent."""
        text = self._line(seconds)
        self.state = text.partition(" ")[2]
        return text.startswith("READY")

    def announce(self) -> None:
        """Say that event queues will come."""
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.write(COMING)
            self.process.stdin.flush()

    def stopped(self, seconds: float) -> bool:
        """Whether its Tornado stopped in time, so that it hears of nothing before it has the event queues."""
        return self._line(seconds) == "STOPPED"

    def send(self, archive: bytes, seconds: float) -> bool:
        """Hand the archive over; an empty one is none."""
        try:
            out, _ = self.process.communicate(archive, timeout=seconds)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            log(f"{self.name} did not take the event queues: {error}", 4)
            self.process.kill()
            return False
        return out.decode(errors="replace").strip().endswith("OK")


def archive(files: Iterable[str], notices: list[tuple[str, str]]) -> bytes:
    """Event queues and notices as one tar; empty when there are none."""
    names = sorted(files)
    if not names and not notices:
        return b""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in names:
            tar.add(name, os.path.basename(name), recursive=False)
        if notices:
            text = json.dumps(notices).encode()
            entry = tarfile.TarInfo(NOTICES)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    return stream.getvalue()


def unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of an archive; what is no plain file with a name of its own is left out."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for entry in tar:
            if entry.isfile() and entry.name == os.path.basename(entry.name) and not entry.name.startswith("."):
                file = tar.extractfile(entry)
                yield entry.name, file.read() if file else b""


# --- the verbs -------------------------------------------------------------------------------------------------------


class Host:
    """This host, as its configuration describes it."""

    def __init__(self, config: dict[str, Any], run_dir: str = RUN_DIR) -> None:
        self.config, self.run_dir = config, run_dir
        self.broker = Broker(config["rabbitmq"])
        self.moving = os.path.join(run_dir, "moving")
        self.adopting = os.path.join(run_dir, "adopting")
        self.stopped = os.path.join(run_dir, "adopting.stopped")
        self.closing = os.path.join(run_dir, "closing")
        self.nginx = os.path.join(run_dir, "nginx.conf")
        self.result = os.path.join(run_dir, "move.json")

    @property
    def active(self) -> bool:
        return os.path.exists(os.path.join(self.run_dir, "active"))

    def lease(self, verb: str, *options: str) -> dict[str, Any]:
        text = run("/usr/bin/python3", "-I", self.config["lease_program"], verb, "--json", *options, timeout=20)
        return dict(json.loads(text))

    def dumps(self) -> list[str]:
        """Files of the event queues that a stopped Tornado left."""
        found = glob.glob(os.path.join(self.config["event_directory"], "event_queues*.json"))
        return [name for name in found if not name.endswith(".last.json")]

    def connect(self, seconds: float = 5.0) -> list[Peer]:
        """The other app hosts that answer."""
        peers = [Peer(peer["name"], peer["address"], self.config["ssh"]) for peer in self.config["peers"]]
        end = time.monotonic() + seconds
        return [peer for peer in peers if peer.ready(max(0.1, end - time.monotonic()))]

    def drain(self) -> None:
        """Answer what there is to answer, and take nothing new."""
        open(self.moving, "w", encoding="ascii").close()
        address = self.config["virtual_ip"]
        if address:
            run("nft", "-f", "-", stdin=hold_rules(address, self.config["hold_seconds"]))
        self.end_polls()
        if address and not wait_until(lambda: not connections(address), self.config["drain_seconds"]):
            log(f"{connections(address)} connections did not end within {self.config['drain_seconds']} s", 4)

    def tell_haproxy(self, *commands: str) -> None:
        """Give commands for each server of polls to every process of HAProxy's."""
        path = self.config["haproxy_socket"]
        try:
            for pid in workers(haproxy(path, "show proc")):
                for server in self.config["event_servers"]:
                    for command in commands:
                        haproxy(path, f"@!{pid} {command.format(server=server)}")
        except OSError as error:
            log(f"HAProxy: {error}", 4)

    def end_polls(self) -> None:
        """Cut the polls at HAProxy: nginx answers them, and those that come."""
        # Of a server that is there HAProxy 2.6 would ask it again.
        self.tell_haproxy("set server {server} state maint", "shutdown sessions server {server}")

    def hand_over(self, peers: list[Peer]) -> tuple[int, int]:
        """Stop Tornado and give what it had to the peers. Returns the number of files and of notices."""
        with contextlib.suppress(MoveError):  # what is left in the queues is handed over as well
            wait_until(lambda: not self.broker.depth(self.config["event_queues"]), 0.5)
        run("systemctl", "stop", *self.config["event_units"], timeout=60)
        files, notices = self.dumps(), self.broker.take(self.config["event_queues"])
        data = archive(files, notices)
        took = [peer.send(data, 20) for peer in peers]
        if not any(took):
            log("no other host took the event queues: clients register again", 4)
        return len(files), len(notices)

    def finish(self) -> int:
        """Let the workers end what this host's broker has, and hand over what they have to say."""
        with contextlib.suppress(MoveError):
            wait_until(lambda: not self.broker.depth(self.config["work_queues"]), self.config["finish_seconds"], 0.5)
        late = self.broker.take(self.config["event_queues"])
        if late:
            for peer in self.connect():
                peer.send(archive([], late), 20)
        return len(late)

    def move(self) -> dict[str, Any]:
        """Hand over."""
        if not self.active:
            return {"moved": False, "why": "this host is not active"}
        peers = self.connect()
        able = [peer for peer in peers if "unhealthy" not in peer.state]
        if not able:
            said = "; ".join(f"{peer.name}: {peer.state}" for peer in peers)
            raise MoveError(f"no other app host can take over ({said or 'none answers'}); nothing was changed")
        open(self.closing, "w", encoding="ascii").close()
        # What runs once on the site can wait for its next host, and stopping it takes longer than clients should wait.
        run("systemctl", "stop", "zulip-singleton@*")
        for peer in able:
            peer.announce()
        time.sleep(self.config["settle_seconds"])
        # Clients that talk have been told by now. Connections of those that do not are closed, and no new one is kept.
        with open(self.nginx, "w", encoding="ascii") as file:
            file.write("keepalive_timeout 0;\n")
        run("systemctl", "reload", "nginx.service")
        end = time.monotonic() + self.config["stop_seconds"]
        for peer in able:
            if not peer.stopped(max(0.1, end - time.monotonic())):
                log(f"{peer.name} has not stopped Tornado in time: some events may come late", 4)
        began = time.monotonic()
        self.drain()
        drained = time.monotonic() - began
        released: list[float] = []
        failed: list[MoveError] = []

        def release() -> None:
            try:
                self.lease("release", "--seconds", "30")
                released.append(time.monotonic() - began)
            except MoveError as error:
                failed.append(error)

        thread = threading.Thread(target=release)
        thread.start()
        files, notices = self.hand_over(able)
        handed = time.monotonic() - began
        thread.join()
        holder = ""

        def taken() -> bool:
            nonlocal holder
            # On a machine that is short of CPU the agent may be away for a moment.
            with contextlib.suppress(MoveError):
                holder = str(self.lease("status").get("holder") or "")
            return holder not in ("", self.config["host"])

        if failed or not wait_until(taken, 15, 0.2):
            raise MoveError(str(failed[0]) if failed else "no other host took the lease within 15 s; this one resumes")
        moved = time.monotonic() - began
        for name in self.dumps():
            os.unlink(name)
        self.cleanup(start=False)
        late = self.finish()
        return {
            "moved": True,
            "to": holder,
            "seconds": {
                "drained": round(drained, 2),
                "released": round(released[0], 2),
                "handed_over": round(handed, 2),
                "seen_elsewhere": round(moved, 2),
            },
            "event_files": files,
            "notices": notices + late,
        }

    def cleanup(self, start: bool = True) -> None:
        """Undo what holds clients back; harmless when there is nothing to undo."""
        run("nft", "delete", "table", "inet", TABLE, check=False)
        self.tell_haproxy("set server {server} state ready")
        held = [name for name in (self.moving, self.closing, self.nginx) if os.path.exists(name)]
        for name in held:
            os.unlink(name)
        if self.nginx in held:
            run("systemctl", "reload", "nginx.service", check=False)
        if start:
            again = [*self.config["event_units"], *(["zulip-active.target"] if self.active else [])]
            run("systemctl", "start", *again, timeout=60, check=False)
            with contextlib.suppress(MoveError):
                self.lease("resume")

    # on the other host

    def receive(self) -> None:
        """As the application's user, for a peer: take an archive from standard input."""
        state = run("systemctl", "show", "--property=StatusText", "--value", "zulip-ha-lease.service", check=False)
        print(f"READY {state.strip()}", flush=True)
        folder = os.path.join(self.config["event_directory"], "adopt")
        coming = os.path.join(folder, f"{time.time_ns()}.coming")
        # An archive does not begin like this, and nothing comes from who only asked.
        data = sys.stdin.buffer.readline()
        try:
            if data == COMING:
                os.makedirs(folder, exist_ok=True)
                open(coming, "w", encoding="ascii").close()
                print("STOPPED" if wait_until(self.events_stopped, 10) else "RUNNING", flush=True)
                data = b""
            data += sys.stdin.buffer.read()
            if data:
                os.makedirs(folder, exist_ok=True)
                part = tempfile.mkdtemp(prefix=".part-", dir=folder)
                for name, content in unpacked(data):
                    with open(os.path.join(part, name), "wb") as file:
                        file.write(content)
                os.rename(part, os.path.join(folder, f"{time.time_ns()}.ready"))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(coming)
        print("OK", flush=True)

    def events_stopped(self) -> bool:
        """Whether Tornado stopped to wait for event queues."""
        return os.path.exists(self.stopped)

    def announced(self) -> list[str]:
        """What was announced and has not come yet; what was announced long ago is forgotten."""
        fresh = []
        for name in glob.glob(os.path.join(self.config["event_directory"], "adopt", "*.coming")):
            with contextlib.suppress(FileNotFoundError):
                if 0 <= time.time() - os.stat(name).st_mtime < COMING_SECONDS:
                    fresh.append(name)
                else:
                    os.unlink(name)
        return fresh

    def hold_events(self) -> None:
        """Stop Tornado and start it anew: it loads, and begins when `adopting` is gone (app_run)."""
        with open(self.adopting, "w", encoding="ascii") as file:
            file.write("".join(f"{unit}\n" for unit in self.config["event_units"]))
        run("systemctl", "stop", *self.config["event_units"], timeout=60)
        open(self.stopped, "w", encoding="ascii").close()
        run("systemctl", "start", *self.config["event_units"], timeout=60)

    def adopt(self) -> None:
        """Let Tornado take over what was received, or wait for what was announced."""
        try:
            if self.announced():
                self.hold_events()
                wait_until(lambda: not self.announced(), 2 * COMING_SECONDS)
            folders = sorted(glob.glob(os.path.join(self.config["event_directory"], "adopt", "*.ready")))
            files = [name for folder in folders for name in glob.glob(os.path.join(folder, "event_queues*.json"))]
            if files and not self.events_stopped():
                self.hold_events()
            notices = self.place(folders)
        finally:
            for name in (self.adopting, self.stopped):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name)
        known = set(self.config["event_queues"])
        self.broker.give((queue, body) for queue, body in notices if queue in known)
        log(f"took over {len(files)} files of event queues and {len(notices)} notices")

    def place(self, folders: Iterable[str]) -> list[tuple[str, str]]:
        """Put event queues where Tornado looks for them, and return the notices that came with them."""
        user = pwd.getpwnam(self.config["user"])
        notices: list[tuple[str, str]] = []
        # The folder is the application's: what is done in it is done with its rights.
        os.setegid(user.pw_gid)
        os.seteuid(user.pw_uid)
        try:
            for folder in folders:
                for name in glob.glob(os.path.join(folder, "event_queues*.json")):
                    os.replace(name, os.path.join(self.config["event_directory"], os.path.basename(name)))
                with (
                    contextlib.suppress(FileNotFoundError),
                    open(os.path.join(folder, NOTICES), encoding="utf-8") as file,
                ):
                    notices += json.load(file)
                shutil.rmtree(folder)
        finally:
            os.seteuid(0)
            os.setegid(0)
        return notices


def main() -> int:
    parser = argparse.ArgumentParser(description="Hands the active role of this app host over to another one.")
    parser.add_argument("--config", default=CONFIG, help="default: %(default)s")
    parser.add_argument("verb", choices=["move", "cleanup", "receive", "adopt"])
    arguments = parser.parse_args()
    try:
        with open(arguments.config, encoding="utf-8") as file:
            host = Host(json.load(file))
        if arguments.verb == "move":
            result = host.move()
            with open(host.result, "w", encoding="utf-8") as file:
                json.dump(result, file)
            log(json.dumps(result))
        else:
            getattr(host, arguments.verb)()
    except (MoveError, OSError, ValueError) as error:
        print(f"app_move: {arguments.verb}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
