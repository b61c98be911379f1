"""python -m tests.s3 start|stop|remove FOLDER …: the server without pytest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tests.s3.server import ObjectStore


def main() -> None:
    """Do what was asked; `start` prints what clients need as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.s3")
    parser.add_argument("action", choices=["start", "stop", "remove"])
    parser.add_argument("folder", type=Path, help="holds what is stored, and the keys")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8600)
    parser.add_argument("--certificate", type=Path, default=Path("node.pem"))
    parser.add_argument("--key", type=Path, default=Path("node.key"))
    parser.add_argument("--ca", type=Path, default=Path("ca.pem"))
    parser.add_argument("--name", default="", help="domain of which buckets are hosts (uri-style host)")
    parser.add_argument("--bucket", action="append", default=[])
    given = parser.parse_args()
    store = ObjectStore(
        given.folder, given.address, given.port, given.certificate, given.key, given.ca, name=given.name
    )
    if given.action == "start":
        store.start()
        for bucket in given.bucket:
            store.make_bucket(bucket)
        print(json.dumps({"endpoint": store.endpoint, **store.keys}))
    elif given.action == "stop":
        store.stop()
    else:
        store.remove()


if __name__ == "__main__":
    main()
