"""Creates the lab's users on the active app host; lab/users.yml runs it there.

Reads {"commands": {...}, "values": {...}, "people": [...]} from standard input and prints the people with their API
keys. The commands are the application profile's: lists of words in which {email}, {full_name}, {role} and what `values`
holds are filled in. A password goes in on standard input; the key comes back as JSON with `api_key`.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def run(words: list[str], person: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    for name, value in person.items():
        words = [word.replace("{" + name + "}", str(value)) for word in words]
    return subprocess.run(
        ["runuser", "-u", "zulip", "--", *words], input=person["password"], capture_output=True, text=True, check=False
    )


def api_key(commands: dict[str, list[str]], person: dict[str, Any]) -> tuple[str | None, bool]:
    """The person's key, none where no command makes such a user, and whether the person had to be created."""
    # Asking for the key is how to find out whether somebody is there.
    asked = run(commands["get_api_key"], person)
    if asked.returncode == 0:
        return json.loads(asked.stdout.splitlines()[-1])["api_key"], False
    # The owner comes with the organisation.
    verb = "create_realm" if person["role"] == "owner" else "create_user"
    takes_role = any("{role}" in word for word in commands[verb])
    if person["role"] == "bot" and not takes_role:
        return None, False
    created = run(commands[verb], person)
    if created.returncode != 0:
        raise SystemExit(f"{person['email']} cannot be created: {created.stderr.strip() or created.stdout.strip()}")
    if not takes_role and person["role"] not in ("owner", "member"):
        run(commands["change_user_role"], person)
    asked = run(commands["get_api_key"], person)
    if asked.returncode != 0:
        raise SystemExit(f"{person['email']} was created, and yet has no API key: {asked.stderr.strip()}")
    return json.loads(asked.stdout)["api_key"], True


def main() -> None:
    task = json.load(sys.stdin)
    # The owner, who makes the organisation, before everybody else.
    owner, *others = [person | task["values"] for person in task["people"]]
    answers = [api_key(task["commands"], owner)]
    with ThreadPoolExecutor(4) as pool:
        answers += pool.map(lambda person: api_key(task["commands"], person), others)
    people = zip(task["people"], answers, strict=True)
    users = [person | {"api_key": key} for person, (key, _) in people if key is not None]
    json.dump({"users": users, "changed": any(created for _, created in answers)}, sys.stdout)


main()
