"""The `zulip` client through the virtual IP: send, receive by long poll, find the row on both database hosts."""

from __future__ import annotations

import threading
import time
import uuid

from tests.lab.support import wait_for


def test_a_message_reaches_a_long_poll_within_a_second_and_both_databases(lab, client):
    sender, receiver = client(lab.user("owner")), client(lab.user("member"))
    queue = receiver.register(event_types=["message"])
    assert queue["result"] == "success", queue
    received: dict = {}
    waiting = threading.Event()

    def wait_for_the_event() -> None:
        last = queue["last_event_id"]
        while "at" not in received:
            waiting.set()
            answer = receiver.get_events(queue_id=queue["queue_id"], last_event_id=last)
            assert answer["result"] == "success", answer
            for event in answer["events"]:
                last = event["id"]
                if event["type"] == "message":
                    received.update(at=time.monotonic(), content=event["message"]["content"])

    reader = threading.Thread(target=wait_for_the_event, daemon=True)
    reader.start()
    waiting.wait(5)
    time.sleep(0.5)
    nonce = uuid.uuid4().hex
    sent = time.monotonic()
    answer = sender.send_message({"type": "private", "to": [lab.user("member")["email"]], "content": nonce})
    assert answer["result"] == "success", answer
    reader.join(10)
    assert nonce in received.get("content", ""), "the long poll never returned the message"
    delay = received["at"] - sent
    print(f"send to receive: {delay:.3f} s")
    assert delay < 1

    query = f"select count(*) from zulip.zerver_message where id = {answer['id']}"
    for node in lab.in_group("database"):
        count = wait_for(
            f"the row on {node}",
            lambda node=node: lab.run(node, f'runuser -u postgres -- psql -At zulip -c "{query}"', check=False) == "1",
            5,
        )
        assert count


def test_a_message_to_a_channel_and_an_upload_come_back_the_same(lab, client, tmp_path):
    owner = client(lab.user("owner"))
    nonce = uuid.uuid4().hex
    answer = owner.send_message({"type": "stream", "to": "general", "topic": "lab", "content": nonce})
    assert answer["result"] == "success", answer
    found = owner.get_messages({"anchor": answer["id"], "num_before": 0, "num_after": 0, "narrow": []})
    assert [nonce in message["content"] for message in found["messages"]] == [True]

    file = tmp_path / "picture.bin"
    file.write_bytes(uuid.uuid4().bytes * 20000)
    with file.open("rb") as handle:
        uploaded = owner.upload_file(handle)
    assert uploaded["result"] == "success", uploaded
    # Releases before 9.0 call it by its old name alone.
    address = uploaded.get("url") or uploaded["uri"]
    owner.ensure_session()
    back = owner.session.get(lab.url + address, timeout=20)
    assert back.status_code == 200
    assert back.content == file.read_bytes()

    spare = [node for node in lab.in_group("app") if node not in lab.active()]
    for node in spare:
        name = address.rsplit("/", 1)[1]
        wait_for(
            f"the upload on {node}",
            lambda node=node, name=name: lab.run(node, f"find /home/zulip/uploads -name '{name}' -size +100k"),
            15,
        )
