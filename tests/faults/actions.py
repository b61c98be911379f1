"""What a fault does to nodes, and how it is undone.

`inject` returns when the fault has happened, and raises when it did not: a fault that did not happen proves nothing.
`heal` takes the cause away and nothing more: it starts no service that should come back by itself. It may be called at
any time and any number of times, also by a later process that knows nothing of the first (`sweep`), so all that it
needs to know is on the node or follows from the lab's state.
"""

from __future__ import annotations

import contextlib
import ipaddress
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.faults.nodes import PAUSED, RUNNING, NodeError, Nodes

TABLE = "zulip_ha_fault"
DIRECTORY = "/run/zulip-ha-fault"
BOOT_SECONDS = 120
ETCD_PORTS = (2379, 2380)


class Absent(Exception):
    """The site has nothing that this fault could hit, or nothing to make it with."""


class Action:
    """One thing that happens to some nodes."""

    def __init__(self, nodes: Nodes, *hits: str) -> None:
        self.nodes, self.hits = nodes, frozenset(hits)

    @property
    def down(self) -> frozenset[str]:
        """Nodes of which the rest of the site sees nothing, or that do not run at all."""
        return frozenset()

    @property
    def blind(self) -> frozenset[str]:
        """Nodes in which nothing runs meanwhile, the samplers included."""
        return frozenset()

    @property
    def voters(self) -> frozenset[str]:
        """Nodes whose member of etcd does not vote meanwhile, should they have one."""
        return self.down

    def prepare(self) -> None:
        """Do what has to be there before, and is no part of the fault. The site is whole again before it begins."""

    def inject(self) -> None:
        """Make it happen."""
        raise NotImplementedError

    def heal(self) -> None:
        """Take the cause away."""


class Together(Action):
    """Several at once."""

    def __init__(self, *actions: Action) -> None:
        super().__init__(actions[0].nodes, *(node for action in actions for node in action.hits))
        # Nothing can be done any more in a node that is down.
        self.actions = sorted(actions, key=lambda action: bool(action.down))

    @property
    def down(self) -> frozenset[str]:
        return frozenset().union(*(action.down for action in self.actions))

    @property
    def blind(self) -> frozenset[str]:
        return frozenset().union(*(action.blind for action in self.actions))

    @property
    def voters(self) -> frozenset[str]:
        return frozenset().union(*(action.voters for action in self.actions))

    def prepare(self) -> None:
        for action in self.actions:
            action.prepare()

    def inject(self) -> None:
        for action in self.actions:
            action.inject()

    def heal(self) -> None:
        errors = []
        for action in reversed(self.actions):
            # One that cannot be undone now keeps no other from it.
            try:
                action.heal()
            except NodeError as error:
                errors.append(str(error))
        if errors:
            raise NodeError("; ".join(errors))


# --- processes -------------------------------------------------------------------------------------------------------

# $1: the unit or a pattern of units, of which the first is meant; $2: `all` processes of it or the `main` one.
KILL = """
unit=$(systemctl list-units --state=active --plain --no-legend "$1" | awk 'NR == 1 { print $1 }')
[ -n "$unit" ] || { echo "$1 does not run" >&2; exit 1; }
pid=$(systemctl show --property=MainPID --value "$unit")
[ "$pid" -gt 0 ] || { echo "$unit has no main process" >&2; exit 1; }
began=$(cut -d' ' -f22 "/proc/$pid/stat")
systemctl kill --signal=KILL --kill-whom="$2" "$unit"
for _ in $(seq 50); do
    [ "$(cut -d' ' -f22 "/proc/$pid/stat" 2>/dev/null)" = "$began" ] || exit 0
    case $(cut -d' ' -f3 "/proc/$pid/stat" 2>/dev/null) in Z | X) exit 0 ;; esac
    sleep 0.1
done
echo "$unit survived" >&2
exit 1
"""
# The postmaster's own processes find out by themselves that it is gone.
KILL_POSTMASTER = """
pid=$(head -n 1 /var/lib/postgresql/*/main/postmaster.pid)
kill -KILL "$pid"
for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || exit 0; sleep 0.1; done
echo "the postmaster survived" >&2
exit 1
"""


class Kill(Action):
    """kill -9 of a service. Whatever starts it again is the site's own."""

    def __init__(self, nodes: Nodes, node: str, unit: str, whom: str = "all") -> None:
        super().__init__(nodes, node)
        self.node, self.unit, self.whom = node, unit, whom

    def inject(self) -> None:
        self.nodes.sh(self.node, KILL, self.unit, self.whom)


class KillPostmaster(Action):
    """kill -9 of PostgreSQL, of which Patroni is told nothing."""

    def inject(self) -> None:
        for node in self.hits:
            self.nodes.sh(node, KILL_POSTMASTER)


class Gone(Action):
    """A service that was killed and cannot start until it is healed."""

    def __init__(self, nodes: Nodes, node: str, unit: str) -> None:
        super().__init__(nodes, node)
        self.node, self.unit = node, unit

    @property
    def voters(self) -> frozenset[str]:
        return self.hits if self.unit == "etcd.service" else frozenset()

    def inject(self) -> None:
        self.nodes.sh(self.node, 'systemctl mask --runtime --quiet "$1"', self.unit)
        self.nodes.sh(self.node, KILL, self.unit, "all")

    def heal(self) -> None:
        if self.nodes.status()[self.node] == RUNNING:
            unmask(self.nodes, self.node)


# What is masked for the time of a fault, and only that: a mask that somebody made for good is below /etc.
UNMASK = """
for link in /run/systemd/system/*.service; do
    [ "$(readlink "$link" || true)" = /dev/null ] || continue
    unit=${link##*/}
    systemctl unmask --runtime --quiet "$unit"
    systemctl reset-failed "$unit" 2>/dev/null || true
    systemctl start --no-block "$unit"
done
"""


def unmask(nodes: Nodes, node: str) -> None:
    """Let services start that were kept from it, and start them: what masked them had stopped them too."""
    nodes.sh(node, UNMASK)


# --- nodes -----------------------------------------------------------------------------------------------------------


# Soon after the start it cannot even be asked; `degraded` may be a unit that waits for the rest of the site.
WAIT_FOR_SYSTEMD = """
until state=$(systemctl is-system-running --wait 2>/dev/null) || [ "$state" = degraded ]; do sleep 0.3; done
"""


def boot(nodes: Nodes, node: str) -> None:
    """Start a node that does not run, and wait until its systemd has started everything."""
    status = nodes.status()[node]
    if status == PAUSED:
        nodes.engine(node, "unpause")
    elif status != RUNNING:
        nodes.engine(node, "start")
        nodes.sh(node, WAIT_FOR_SYSTEMD, timeout=BOOT_SECONDS)


class Standstill(Action):
    """Nothing of the node runs, so that nobody can look at it either."""

    @property
    def down(self) -> frozenset[str]:
        return self.hits

    blind = down


class KillNode(Standstill):
    """The node's power fails. Its kernel lives on, so connections of its processes are closed with it."""

    def inject(self) -> None:
        for node in self.hits:
            self.nodes.engine(node, "kill")

    def heal(self) -> None:
        for node in self.hits:
            boot(self.nodes, node)


class PowerOff(KillNode):
    """The same without a farewell: nothing of the node reaches anybody any more, as of a host whose power fails."""

    def inject(self) -> None:
        for node in self.hits:
            load_rules(self.nodes, node, [Drop(node, "input"), Drop(node, "output")])
            self.nodes.engine(node, "kill")


class Freeze(Standstill):
    """No process of the node runs. Its kernel goes on to acknowledge what arrives."""

    def inject(self) -> None:
        for node in self.hits:
            self.nodes.engine(node, "pause")

    def heal(self) -> None:
        for node, status in self.nodes.status().items():
            if node in self.hits and status == PAUSED:
                self.nodes.engine(node, "unpause")


# --- the network -----------------------------------------------------------------------------------------------------

REMEMBER_INTERFACE = """
mkdir -p "$2"
ip -oneline address show | awk -v a="$1" '!found && index($4, a "/") == 1 { print $2; found = 1 }' >"$2/interface"
{ ip -4 route show default; ip -6 route show default; } >"$2/routes"
"""
# Docker looks for the interface by the name that it gave it, and leaves one that has got its old name back (below).
REMOVE_INTERFACE = """
have=$(ip -oneline address show | awk -v a="$1" '!found && index($4, a "/") == 1 { print $2; found = 1 }')
[ -z "$have" ] || ip link delete "$have"
"""
# A cable that is plugged in again is the same interface as before, which Docker would give another name.
RESTORE_INTERFACE = """
want=$(cat "$2/interface" 2>/dev/null || true)
have=$(ip -oneline address show | awk -v a="$1" '!found && index($4, a "/") == 1 { print $2; found = 1 }')
[ -n "$have" ] || { echo "no interface has $1" >&2; exit 1; }
if [ -n "$want" ] && [ "$have" != "$want" ]; then
    ip link set "$have" down
    ip link set "$have" name "$want"
    ip link set "$want" up
    while read -r route; do
        case $route in *:*) family=-6 ;; *) family=-4 ;; esac
        [ -z "$route" ] || ip "$family" route replace $route || true
    done <"$2/routes"
fi
rm -f "$2/interface" "$2/routes"
"""


class Unplug(Action):
    """The node's cable is pulled: it has no interface and no address any more, and nobody is told."""

    @property
    def down(self) -> frozenset[str]:
        return self.hits

    def inject(self) -> None:
        for node in self.hits:
            found = self.nodes.networks(node)
            self.nodes.sh(node, REMEMBER_INTERFACE, self.nodes.addresses[node], DIRECTORY)
            for network in found:
                self.nodes.network("disconnect", node, network)
            self.nodes.sh(node, REMOVE_INTERFACE, self.nodes.addresses[node])

    def heal(self) -> None:
        for node in self.hits:
            plug_in(self.nodes, node)


def plug_in(nodes: Nodes, node: str) -> None:
    """Give a node the network that the others have, with the address of the lab's state."""
    address = nodes.addresses[node]
    if not nodes.networks(node):
        others = [found for other in nodes if other != node for found in nodes.networks(other)]
        if not others:
            raise NodeError(f"{node}: no other node has a network")
        option = "--ip6" if ipaddress.ip_address(address).version == 6 else "--ip"
        nodes.network("connect", node, option, address, others[0])
    if nodes.status()[node] == RUNNING:
        nodes.sh(node, RESTORE_INTERFACE, address, DIRECTORY)


@dataclass(frozen=True)
class Drop:
    """Packets that a node takes from (`input`), or sends to (`output`), others, dropped without a word."""

    node: str
    direction: str
    peers: tuple[str, ...] = ()
    """Addresses; none: everybody, but never the node itself."""
    ports: tuple[int, ...] = ()

    def rules(self) -> list[str]:
        """Return the rules of nftables."""
        side, interface = ("saddr", "iifname") if self.direction == "input" else ("daddr", "oifname")
        where = []
        for word, version in (("ip", 4), ("ip6", 6)):
            mine = [peer for peer in self.peers if ipaddress.ip_address(peer).version == version]
            where += [f"{word} {side} {{ {', '.join(mine)} }} "] if mine else []
        # Both ends: what was open goes on to be answered from these ports.
        ports = ", ".join(map(str, self.ports))
        which = [f"tcp dport {{ {ports} }} ", f"tcp sport {{ {ports} }} "] if ports else [""]
        return [f'{interface} != "lo" {one}{port}counter drop' for one in where or [""] for port in which]


def load_rules(nodes: Nodes, node: str, drops: Sequence[Drop]) -> None:
    """Put the drops of a node into a table of its own. Before connection tracking: what is open is cut as well."""
    lines = [f"table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    for direction in ("input", "output"):
        rules = [rule for drop in drops if drop.direction == direction for rule in drop.rules()]
        lines += [f"chain {direction} {{", f"type filter hook {direction} priority -300; policy accept;", *rules, "}"]
    nodes.sh(node, 'nft -f - <<<"$1"', "\n".join([*lines, "}"]))


def drop_rules(nodes: Nodes, node: str) -> None:
    """Delete that table, if it is there."""
    nodes.sh(node, f"nft -f - <<<$'table inet {TABLE}\\ndelete table inet {TABLE}'")


class Cut(Action):
    """Nodes that do not reach each other, or others."""

    def __init__(
        self, nodes: Nodes, drops: Iterable[Drop], isolated: Iterable[str] = (), voters: Iterable[str] = ()
    ) -> None:
        self.drops = list(drops)
        super().__init__(nodes, *(drop.node for drop in self.drops))
        self.isolated = frozenset(isolated)
        self.cut_off = self.isolated | frozenset(voters)

    @property
    def down(self) -> frozenset[str]:
        return self.isolated

    @property
    def voters(self) -> frozenset[str]:
        return self.cut_off

    def inject(self) -> None:
        for node in sorted(self.hits):
            load_rules(self.nodes, node, [drop for drop in self.drops if drop.node == node])

    def heal(self) -> None:
        status = self.nodes.status()
        for node in sorted(self.hits):
            # A node that does not run has no table, and gets none when it starts.
            if status[node] == RUNNING:
                drop_rules(self.nodes, node)


def between(nodes: Nodes, one: str, other: str) -> Cut:
    """Two nodes that do not reach each other, and reach everybody else."""
    return Cut(nodes, [Drop(one, "input", (nodes.addresses[other],)), Drop(other, "input", (nodes.addresses[one],))])


def one_way(nodes: Nodes, source: str, target: str) -> Cut:
    """A node whose packets do not reach another, while it gets the other's."""
    return Cut(nodes, [Drop(target, "input", (nodes.addresses[source],))])


def isolate(nodes: Nodes, node: str) -> Cut:
    """A node that reaches nobody and is reached by nobody, while its interface is up."""
    return Cut(nodes, [Drop(node, "input"), Drop(node, "output")], [node])


def from_etcd(nodes: Nodes, node: str) -> Cut:
    """A node that reaches no other member of etcd, and none of its clients; all else goes on."""
    voters = tuple(nodes.addresses[voter] for voter in nodes.in_group("quorum") if voter != node)
    return Cut(nodes, [Drop(node, way, voters, ETCD_PORTS) for way in ("input", "output")], voters=[node])


# --- full disks ------------------------------------------------------------------------------------------------------

# The disk of a container is the machine's, which nobody may fill. Instead the database's processes are told that no
# file may grow beyond 64 kB: every write of WAL, of a table, of a temporary file fails, in the places where it fails
# on a full disk (with EFBIG instead of ENOSPC, which PostgreSQL treats alike). Nothing is written, nothing is left
# behind, and a node that starts anew has none of it. Patroni gets the limit too, and with it each PostgreSQL that it
# starts. The soft limit alone, which needs no capability to be lifted again; as the user itself, because root of a
# node has none over others.
LIMIT = """
limited() { grep -c '^Max file size  *65536 ' "/proc/$1/limits" 2>/dev/null || true; }
# A server that is starting may have been missed: until all have it.
for _ in 1 2 3; do
    for directory in /proc/[0-9]*; do
        [ "$(stat -c %U "$directory" 2>/dev/null)" = postgres ] || continue
        runuser -u postgres -- prlimit --pid "${directory#/proc/}" --fsize="$1": 2>/dev/null || true
    done
    sleep 0.2
done
if [ "$1" = 65536 ]; then
    pid=$(systemctl show --property=MainPID --value patroni.service)
    [ "$(limited "$pid")" = 1 ] || { echo "Patroni has no limit" >&2; exit 1; }
fi
"""


class FullDatabaseDisk(Action):
    """No file of the database grows any more."""

    def inject(self) -> None:
        for node in self.hits:
            self.nodes.sh(node, LIMIT, "65536", timeout=60)

    def heal(self) -> None:
        status = self.nodes.status()
        for node in self.hits:
            if status[node] == RUNNING:
                self.nodes.sh(node, LIMIT, "unlimited", timeout=60)


# A file system of 4 MB in the place of /var/log, with the same folders and empty files, filled to the last byte.
# Whoever writes to files that are open goes on to write to the old ones; so those that keep them open are told to open
# them anew, as logrotate does.
FILL_LOG = """
staging=$1/log
if ! findmnt --noheadings --mountpoint /var/log >/dev/null; then
    mkdir -p "$staging"
    mount -t tmpfs -o size=4m,mode=755 zulip-ha-fault "$staging"
    cp -a --attributes-only /var/log/. "$staging/"
    dd if=/dev/zero of="$staging/zulip-ha-fault-filler" bs=64k 2>/dev/null || true
    mount --bind "$staging" /var/log
fi
if head -c 65536 /dev/zero 2>/dev/null >/var/log/zulip-ha-fault-probe; then echo "/var/log is not full" >&2; exit 1; fi
"""
REOPEN = """
systemctl kill --signal=USR1 --kill-whom=main nginx.service 2>/dev/null || true
systemctl kill --signal=USR2 --kill-whom=main systemd-journald.service 2>/dev/null || true
"""
UNFILL_LOG = """
for place in /var/log "$1/log"; do
    while findmnt --noheadings --output=SOURCE --mountpoint "$place" | grep -q '^zulip-ha-fault'; do
        umount --lazy "$place"
    done
done
rmdir "$1/log" 2>/dev/null || true
"""


class FullLog(Action):
    """/var/log takes nothing more."""

    def inject(self) -> None:
        for node in self.hits:
            self.nodes.sh(node, FILL_LOG + REOPEN, DIRECTORY)

    def heal(self) -> None:
        status = self.nodes.status()
        for node in self.hits:
            if status[node] == RUNNING:
                self.nodes.sh(node, UNFILL_LOG + REOPEN, DIRECTORY)


# --- clocks ----------------------------------------------------------------------------------------------------------

# libfaketime reads the offset from a file, so the clock of a process that runs can be moved. CLOCK_MONOTONIC and
# CLOCK_BOOTTIME are left alone, as by a step of a real clock.
LIBRARY = """
library=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1 2>/dev/null || true)
if [ -z "$library" ]; then
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends libfaketime >/dev/null
    library=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1)
fi
"""
# That of Debian 12 moves absolute sleeps on the monotonic clock as well, which fail then: every time.sleep of Python.
# A service that cannot sleep shows what is wrong with the library, not what is wrong with its clock.
LIBRARY_WORKS = (
    LIBRARY
    + """
offset=$(mktemp)
echo +3600 >"$offset"
LD_PRELOAD=$library FAKETIME_TIMESTAMP_FILE=$offset FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1 \\
    python3 -I -c 'import time; time.sleep(0.01)'
"""
)
FAKE_CLOCK = (
    LIBRARY
    + """
unit=$1 file=$2/clock-$1
mkdir -p "$2" "/run/systemd/system/$unit.d"
echo +0 >"$file"
chmod 644 "$file"
cat >"/run/systemd/system/$unit.d/99-zulip-ha-fault.conf" <<END
[Service]
Environment=LD_PRELOAD=$library FAKETIME_TIMESTAMP_FILE=$file FAKETIME_CACHE_DURATION=1
Environment=FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1
END
systemctl daemon-reload
pid=$(systemctl show --property=MainPID --value "$unit")
grep -qz '^LD_PRELOAD=.*faketime' "/proc/$pid/environ" || systemctl restart "$unit"
pid=$(systemctl show --property=MainPID --value "$unit")
grep -q libfaketime "/proc/$pid/maps" || { echo "$unit does not run with another clock" >&2; exit 1; }
"""
)
UNFAKE_CLOCKS = """
for file in "$1"/clock-*; do [ ! -e "$file" ] || echo +0 >"$file"; done
rm -f /run/systemd/system/*.d/99-zulip-ha-fault.conf
rmdir /run/systemd/system/*.service.d 2>/dev/null || true
systemctl daemon-reload
"""


CLOCK_SECONDS = 3.0


class Clock(Action):
    """The clock of one service is moved by an hour while it runs."""

    def __init__(
        self,
        nodes: Nodes,
        unit: str,
        members: Sequence[str],
        pick: Callable[[], str],
        whole: Callable[[], None],
        offset: str = "+3600",
    ) -> None:
        """Every one of the `members` gets the library, because starting a service anew may move what it does.

        `pick` says whom it hits at the moment at which it happens.
        """
        super().__init__(nodes, *members)
        self.unit, self.pick, self.whole, self.offset = unit, pick, whole, offset

    def prepare(self) -> None:
        try:
            for node in sorted(self.hits):
                self.nodes.sh(node, LIBRARY_WORKS, timeout=120)
        except NodeError as error:
            raise Absent(f"no libfaketime that leaves sleeps alone: {error}") from None
        last = self.pick()
        for node in sorted(self.hits, key=lambda node: node == last):
            self.nodes.sh(node, FAKE_CLOCK, self.unit, DIRECTORY, timeout=180)
            self.whole()

    def inject(self) -> None:
        self.nodes.sh(self.pick(), 'echo "$1" >"$2/clock-$3"', self.offset, DIRECTORY, self.unit)
        # The library keeps what it has read for a second or two.
        time.sleep(CLOCK_SECONDS)

    def heal(self) -> None:
        status = self.nodes.status()
        for node in self.hits:
            # Who runs with the library keeps it until its next start, with the right time.
            if status[node] == RUNNING:
                self.nodes.sh(node, UNFAKE_CLOCKS, DIRECTORY)


# --- secrets ---------------------------------------------------------------------------------------------------------

SECRETS = "/etc/zulip/zulip-secrets.conf"
RESTART_APP = "systemctl try-restart zulip-django.service 'zulip-tornado@*.service' 'zulip-worker*.service'"
PLANT = f"""
[ -e {SECRETS}.before-fault ] || cp -a {SECRETS} {SECRETS}.before-fault
sed -i -E 's/^( *rabbitmq_password *= *).*/\\1wrong/' {SECRETS}
grep -q 'rabbitmq_password *= *wrong' {SECRETS}
{RESTART_APP}
"""
# Nothing noticed it: then it was not planted.
NOTICED = """
for _ in $(seq 60); do
    status=$(curl --silent --insecure --connect-to ::127.0.0.1: --output /dev/null --write-out '%{http_code}' \\
        --max-time 3 "$1" || true)
    [ "$status" = 200 ] || exit 0
    sleep 0.5
done
echo "the spare says that it is well" >&2
exit 1
"""
RESTORE_SECRETS = f"[ ! -e {SECRETS}.before-fault ] || {{ mv {SECRETS}.before-fault {SECRETS}; {RESTART_APP}; }}"


class WrongSecret(Action):
    """The spare has a secret that is not the site's, which nobody needs to know before it takes over."""

    def inject(self) -> None:
        for node in self.hits:
            self.nodes.sh(node, PLANT, timeout=120)
            self.nodes.sh(node, NOTICED, f"{self.nodes.state['url']}/health", timeout=60)

    def heal(self) -> None:
        status = self.nodes.status()
        for node in self.hits:
            if status[node] == RUNNING:
                self.nodes.sh(node, RESTORE_SECRETS, timeout=120)


# --- planned moves ---------------------------------------------------------------------------------------------------


class Move(Action):
    """A verb of the site that moves a role. It is no fault, and nobody may see more of it than a moment."""

    def __init__(self, nodes: Nodes, play: Callable[[], None], *hits: str) -> None:
        super().__init__(nodes, *hits)
        self.play = play

    def inject(self) -> None:
        self.play()


# --- all of it -------------------------------------------------------------------------------------------------------


def sweep(nodes: Nodes) -> list[str]:
    """Undo whatever any fault may have left on any node, and return what could not be undone."""
    problems: list[str] = []

    def attempt(undo: Callable[..., object], *arguments: object) -> None:
        try:
            undo(*arguments)
        except NodeError as error:
            problems.append(str(error))

    for node in nodes:
        attempt(boot, nodes, node)
        attempt(plug_in, nodes, node)
        attempt(drop_rules, nodes, node)
        attempt(unmask, nodes, node)
        attempt(FullLog(nodes, node).heal)
        attempt(nodes.sh, node, UNFAKE_CLOCKS, DIRECTORY)
        if "database" in nodes.groups[node]:
            attempt(FullDatabaseDisk(nodes, node).heal)
        if "app" in nodes.groups[node]:
            attempt(WrongSecret(nodes, node).heal)
    return problems


def rescue(nodes: Nodes, units: dict[str, list[str]]) -> None:
    """Do by hand what should have happened by itself, so that the next fault meets a site that is whole."""
    for node in nodes:
        words = " ".join(map(shlex.quote, units.get(node, [])))
        # Whatever still does not start is seen by whoever waits for the site.
        with contextlib.suppress(NodeError):
            nodes.sh(node, f"systemctl reset-failed; systemctl start --no-block {words}", timeout=60)
