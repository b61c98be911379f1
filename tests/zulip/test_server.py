"""What a real Zulip does, seen from outside and from its hosts."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.lab.support import playbook, wait_for

INVENTORY = "inventories/zulip"


def test_the_log_in_page_and_the_app_load_all_their_bundles(lab, browser):
    page = browser.log_in(lab.user("owner"))
    assert page.status_code == 200
    assert "/login" not in page.url, "the password was refused"
    login = browser.bundles(browser.get(f"{browser.site}/login/?no_redirect", timeout=20).text)
    bundles = sorted({*browser.bundles(page.text), *login})
    assert len(bundles) >= 3, page.text[:500]
    answers = {address: browser.get(address, timeout=20) for address in bundles}
    assert {address: answer.status_code for address, answer in answers.items() if answer.status_code != 200} == {}
    assert all("immutable" in answer.headers.get("Cache-Control", "") for answer in answers.values())


@pytest.mark.parametrize(
    ("content", "word"), [("they told two stories", "story"), ("we can run it", "running"), ("it stopped", "stopping")]
)
def test_search_finds_another_form_of_a_word(lab, client, content, word):
    """By the dictionary of the package hunspell-en-us, to which the role postgresql adds doubled consonants."""
    owner = client(lab.user("owner"))
    nonce = uuid.uuid4().hex
    sent = owner.send_message({"type": "stream", "to": "general", "topic": nonce, "content": content})
    assert sent["result"] == "success", sent

    def found() -> bool:
        narrow = [{"operator": "topic", "operand": nonce}, {"operator": "search", "operand": word}]
        answer = owner.get_messages({"anchor": "newest", "num_before": 10, "num_after": 0, "narrow": narrow})
        return [message["id"] for message in answer["messages"]] == [sent["id"]]

    wait_for(f"the message among those that are found by '{word}'", found, 10)


def test_katex_renders(lab, client):
    answer = client(lab.user("owner")).render_message({"content": "$$ x^2 $$"})
    assert answer["result"] == "success", answer
    assert 'class="katex"' in answer["rendered"]


def test_the_configuration_is_what_the_release_expects(lab):
    for node in lab.in_group("app"):
        lab.run(
            node, "cd /home/zulip/deployments/current && runuser -u zulip -- env HOME=/home/zulip ./manage.py check"
        )


def test_each_queue_has_a_consumer_on_each_host(lab):
    for node in lab.in_group("app"):
        listed = lab.run(node, "rabbitmqctl list_queues --quiet --formatter=json name consumers </dev/null")
        consumers = {queue["name"]: queue["consumers"] for queue in json.loads(listed)}
        assert len(consumers) > 10
        assert {"notify_tornado_port_9800", "notify_tornado_port_9801"} <= set(consumers)
        assert {name for name, number in consumers.items() if not number} == set()


def test_health_of_both_hosts_and_what_runs_once(lab):
    singletons = {}
    for node in lab.in_group("app"):
        ask = "curl -sk -o /dev/null -w '%{http_code}' https://127.0.0.1/health -H 'Host: chat.zulip-real.test'"
        assert lab.run(node, ask) == "200"
        count = lab.run(node, "pgrep -fc 'manage.py deliver_scheduled_[a-z]+ ' || true")
        singletons[node] = int(count) > 0
    assert [node for node, running in singletons.items() if running] == lab.active()


def test_the_organisation_is_the_second_processes(lab, browser):
    """Events of the site's name are the second process's; whoever comes by the address is handed on to it."""
    node = lab.active()[0]
    code = "from zerver.models import Realm; from zerver.tornado.sharding import get_realm_tornado_ports as ports; "
    code += "print(ports(Realm.objects.get(string_id='')))"
    shell = f'runuser -u zulip -- env HOME=/home/zulip ./manage.py shell --verbosity=0 -c "{code}"'
    assert lab.run(node, f"cd /home/zulip/deployments/current && {shell}").splitlines()[-1] == "[9801]"
    upstream = lab.run(node, "cat /etc/zulip/nginx_sharding_map.conf")
    assert "chat.zulip-real.test http://tornado9801;" in upstream


def test_a_command_of_the_release_changes_a_role(lab, client):
    member = lab.user("member")
    for role, code in (("moderator", 300), ("member", 400)):
        done = playbook(
            "playbooks/manage.yml",
            "-e",
            f"command='change_user_role -r \"\" {member['email']} {role}'",
            inventory=INVENTORY,
        )
        assert done.returncode == 0, done.stdout[-2000:]
        assert "changed from" in done.stdout
        assert client(member).get_profile()["role"] == code
