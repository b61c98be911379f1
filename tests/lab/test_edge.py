"""The loss of the active app host: the other one answers at the virtual IP. (Times and hard cases: the fault suite.)"""

from __future__ import annotations

import time

from tests.lab.support import wait_for


def test_stopping_the_active_host_moves_the_server_to_the_spare(lab, client):
    before = lab.active()
    assert len(before) == 1
    lab.docker("stop", before[0])
    try:
        stopped = time.monotonic()
        after = wait_for("another active host", lambda: [node for node in lab.active() if node != before[0]], 30)
        wait_for("an answer at the virtual IP", lab.answers, 30)
        print(f"{before[0]} stopped; {after[0]} answered {time.monotonic() - stopped:.1f} s after docker stop returned")
        answer = client(lab.user("owner")).send_message(
            {"type": "stream", "to": "general", "topic": "lab", "content": "after"}
        )
        assert answer["result"] == "success", answer
    finally:
        lab.docker("start", before[0])
    ready = "curl -s -o /dev/null -w '%{http_code}' --cacert /etc/zulip-ha/pki/ca.pem https://127.0.0.1/health"
    wait_for(f"{before[0]} back as the spare", lambda: lab.run(before[0], ready, check=False) == "200", 120)
    assert lab.active() == after, "the host that came back must not take over"
