"""A breaking change stops the real ansible-playbook before any host is contacted."""

from __future__ import annotations

import pytest

from .conftest import Project

CHANGES = """\
breaking_changes:
  - {since: 0.2.0, what: a is b, do: rename a}
  - {since: 0.4.0, what: c is gone, do: drop c}
"""


@pytest.fixture
def stamped(project: Project) -> Project:
    """A repository with a version and breaking changes."""
    (project.root / "VERSION").write_text("0.4.0\n")
    (project.root / "playbooks/vars/breaking_changes.yml").write_text(CHANGES)
    shipped = project.root / "group_vars/all/site.yml"
    shipped.write_text(shipped.read_text() + 'site_acknowledged_version: ""\n')
    return project


def test_an_inventory_that_is_behind_is_refused_and_goes_on_when_it_is_raised(stamped: Project) -> None:
    stamped.local('site_acknowledged_version: "0.3"\n')
    outcome = stamped.run()
    assert outcome.code != 0
    assert not outcome.contacted
    (line,) = outcome.problems
    assert "90-local.yml:1: since 0.3" in line
    assert "0.4.0: c is gone -> drop c" in line
    stamped.local('site_acknowledged_version: "0.4"\n')
    outcome = stamped.run()
    assert outcome.code == 0, outcome.text


def test_an_inventory_without_it_is_left_alone(stamped: Project) -> None:
    assert stamped.run().code == 0


def test_a_number_is_no_version(stamped: Project) -> None:
    stamped.local("site_acknowledged_version: 0.4\n")
    outcome = stamped.run()
    assert not outcome.contacted
    assert [line for line in outcome.problems if "put it in quotes" in line]
