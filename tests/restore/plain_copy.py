"""The plain copy that a restore is measured against: tar over one TLS connection, between the same hosts and disks.

  plain_copy.py send DIRECTORY PORT            on the host that has the files: waits for one connection, sends them
  plain_copy.py receive HOST PORT DIRECTORY    on the host that gets them; ends when they are on its disk

Runs on the nodes, with Debian's Python alone and the hosts' own certificates. Nothing is packed, encrypted a second
time or checked: it is as fast as these hosts, their link and their disks let one stream of TLS be.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import ssl
import subprocess
import sys
import time
from typing import IO, Any

PKI = "/etc/zulip-ha/pki"
PIECE = 1 << 20
SET_PIPE_SIZE = 1031


def context(purpose: ssl.Purpose) -> ssl.SSLContext:
    """Return mutual TLS with the host's own certificate, as between the site's services."""
    made = ssl.create_default_context(purpose, cafile=f"{PKI}/ca.pem")
    made.load_cert_chain(f"{PKI}/node.pem", f"{PKI}/node.key")
    made.verify_mode = ssl.CERT_REQUIRED
    made.check_hostname = purpose is ssl.Purpose.SERVER_AUTH
    return made


def tar(*words: str, **pipe: Any) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start tar with a wide pipe."""
    process = subprocess.Popen(["tar", *words], **pipe)
    stream = process.stdout or process.stdin
    assert stream
    with contextlib.suppress(OSError):
        fcntl.fcntl(stream, SET_PIPE_SIZE, PIECE)
    return process, stream


def send(directory: str, port: int) -> int:
    """Send a directory to the first who has a certificate of the site."""
    with (
        socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server,
        context(ssl.Purpose.CLIENT_AUTH).wrap_socket(server.accept()[0], server_side=True) as connection,
    ):
        process, stream = tar("-C", directory, "-cf", "-", ".", stdout=subprocess.PIPE)
        buffer = memoryview(bytearray(PIECE))
        # The raw file: a buffered one would wait for a whole piece.
        while got := stream.raw.readinto(buffer):  # type: ignore[attr-defined]
            connection.sendall(buffer[:got])
        with contextlib.suppress(OSError):
            connection.unwrap()
    return process.wait()


def receive(host: str, port: int, directory: str) -> int:
    """Fetch a directory, and see it onto the disk."""
    with connected(host, port) as connection:
        process, stream = tar("-C", directory, "-xf", "-", stdin=subprocess.PIPE)
        buffer = memoryview(bytearray(PIECE))
        while got := connection.recv_into(buffer):
            stream.write(buffer[:got])
        stream.close()
    status = process.wait()
    return status or subprocess.run(["sync", "--file-system", directory], check=False).returncode


def connected(host: str, port: int, patience: float = 20) -> ssl.SSLSocket:
    """Return a connection to the sender, which may just be starting."""
    end = time.monotonic() + patience
    while True:
        try:
            plain = socket.create_connection((host, port), timeout=patience)
            plain.settimeout(None)
            return context(ssl.Purpose.SERVER_AUTH).wrap_socket(plain, server_hostname=host)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def main(words: list[str]) -> int:
    """Send or receive."""
    if len(words) == 3 and words[0] == "send":
        return send(words[1], int(words[2]))
    if len(words) == 4 and words[0] == "receive":
        return receive(words[1], int(words[2]), words[3])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
