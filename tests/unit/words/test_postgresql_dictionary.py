"""Doubled consonants in PostgreSQL's dictionaries: which forms are given to which words, and the files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from library import postgresql_dictionary
from library.postgresql_dictionary import DictionaryError, Directory, make

AFFIX = """SET UTF-8
TRY abcdefg
NOSUGGEST !
COMPOUNDRULE n*1t

PFX K Y 1
PFX K   0     pro         .

SFX D Y 1
SFX D   0     ed         [^ey]

SFX G Y 2
SFX G   e     ing        e
SFX G   0     ing        [^e]
"""


def words(*entries: str) -> str:
    return "\n".join([str(len(entries)), *entries, ""])


def forms(*entries: str) -> dict[str, list[str]]:
    return make(AFFIX, words(*entries), "test").forms


def accepted(affix: str) -> set[tuple[str, str]]:
    """The words that the rules with a condition like `^(run|plan)` name, and the forms that they make of them."""
    rules = re.findall(r"^SFX \S 0 (\S+) \^\((\S+)\)$", affix, re.MULTILINE)
    return {(base, base + suffix) for suffix, bases in rules for base in bases.split("|")}


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        (("run/ASM", "running/M"), {"run": ["running"]}),
        (("stop/US", "stopped/U", "stopping"), {"stop": ["stopped", "stopping"]}),
        (("commit/AS", "committed/AU"), {"commit": ["committed"]}),
        (("quiz/M", "quizzing", "quizzed"), {"quiz": ["quizzing", "quizzed"]}),
        (("big/P", "bigger", "biggest"), {"big": ["bigger", "biggest"]}),
        # A form that is made by the rules of another word, with or without an e.
        (("step/IMS", "steppe/DSG"), {"step": ["stepped", "stepping"]}),
        (("bat/SM", "batt/G", "batting/M"), {"bat": ["batting"]}),
        (("set/S", "sett/B", "setting/M"), {"set": ["setting"]}),
    ],
)
def test_a_form_with_a_doubled_consonant_is_given_to_its_word(entries: tuple[str, ...], found: dict[str, Any]) -> None:
    assert {base: sorted(of) for base, of in forms(*entries).items()} == {b: sorted(of) for b, of in found.items()}


@pytest.mark.parametrize(
    "entries",
    [
        ("running/M",),
        ("run/ASM", "runing", "runned2"),
        ("of", "offing/M"),
        ("in/A", "inning/M"),
        ("ear/MS", "earring/SM"),
        ("tel/S", "tell/GS", "telling/Y"),
        ("mis", "miss/GD"),
        ("bas", "basse/GD"),
        ("let/S", "letter/MS"),
        ("mat/S", "matter/M"),
        ("put/S", "putte/S"),
        ("Chad/M", "Chadding"),
        ("chad/M", "Chadding"),
        ("play/S", "playying"),
        ("walk/GD",),
    ],
)
def test_other_words_get_nothing(entries: tuple[str, ...]) -> None:
    made = make(AFFIX, words(*entries), "test")
    assert made.forms == {}
    assert made.words == words(*entries)
    assert made.affix.splitlines()[1:] == AFFIX.splitlines()


def test_the_words_get_a_flag_that_was_free_and_rules_that_name_them() -> None:
    made = make(AFFIX, words("0/na", "gram/KMS", "plan/S", "planning", "refer", "referred/b po:x", "x"), "here")
    assert made.affix.startswith("# Written by zulip-ha, out of here")
    assert made.affix.endswith("\n\nSFX c N 2\nSFX c 0 ning ^(plan)\nSFX c 0 red ^(refer)\n")
    assert accepted(made.affix) == {("plan", "planning"), ("refer", "referred")}
    assert made.words == words("0/na", "gram/KMS", "plan/Sc", "planning", "refer/c", "referred/b po:x", "x")


def test_an_entry_that_is_there_twice_is_flagged_twice() -> None:
    made = make(AFFIX, words("run/S", "run/M po:noun", "running"), "here")
    assert made.words == words("run/Sa", "run/Ma po:noun", "running")


@pytest.mark.parametrize(
    ("affix", "entries", "reason"),
    [
        (AFFIX + "FLAG num\n", ("run/1,2",), "single characters"),
        (AFFIX + "FLAG long\n", ("run/AaBb",), "single characters"),
        (AFFIX + "AF 1\nAF AB\n", ("run/1",), "single characters"),
        (AFFIX, ("run/abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",), "none is left"),
    ],
)
def test_what_is_not_understood_is_refused(affix: str, entries: tuple[str, ...], reason: str) -> None:
    with pytest.raises(DictionaryError, match=reason):
        make(affix, words(*entries), "test")


class Host:
    """Debian's cache, and PostgreSQL's directory with links into it."""

    def __init__(self, root: Path) -> None:
        self.data, self.cache = root / "tsearch_data", root / "dicts"
        self.data.mkdir()
        self.cache.mkdir()
        self.package("run/S", "running/M")
        self.pg_updatedicts()

    def package(self, *entries: str) -> None:
        (self.cache / "en_us.affix").write_text(AFFIX)
        (self.cache / "en_us.dict").write_text(words(*entries))

    def pg_updatedicts(self) -> None:
        """As Debian's program does: links, unless one of the two is a file."""
        files = [self.data / path.name for path in self.cache.iterdir()]
        if not any(path.exists() and not path.is_symlink() for path in files):
            for path in files:
                path.unlink(missing_ok=True)
                path.symlink_to(self.cache / path.name)

    def run(self, *doubled: str, check: bool = False) -> Directory:
        directory = Directory(str(self.data), str(self.cache), check)
        self.forms = directory.converge(list(doubled))
        return directory

    def state(self) -> dict[str, str]:
        return {
            path.name: f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
            for path in sorted(self.data.iterdir())
        }


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_files_take_the_place_of_the_links_and_are_left_alone(host: Host) -> None:
    assert host.run("en_us", check=True).diff
    assert all(target.startswith("-> ") for target in host.state().values())
    changes = host.run("en_us").diff
    assert changes[1]["before"] == "run/S\n"
    assert changes[1]["after"] == "run/Sa\n"
    assert host.forms == {"en_us": 1}
    assert set(host.state()) == {"en_us.affix", "en_us.dict"}
    assert host.state()["en_us.dict"] == words("run/Sa", "running/M")
    assert oct((host.data / "en_us.dict").stat().st_mode & 0o777) == "0o644"
    host.pg_updatedicts()
    assert not host.run("en_us").diff


def test_a_changed_package_and_a_changed_file_make_it_anew(host: Host) -> None:
    host.run("en_us")
    host.package("run/S", "running/M", "plan", "planned")
    assert host.run("en_us", check=True).diff
    assert host.run("en_us").diff
    assert host.forms == {"en_us": 2}
    wanted = host.state()
    (host.data / "en_us.dict").write_text("1\nx\n")
    assert host.run("en_us").diff
    assert host.state() == wanted


def test_out_of_the_list_the_links_come_back(host: Host) -> None:
    before = host.state()
    host.run("en_us")
    assert host.run(check=True).diff
    assert host.state() != before
    assert host.run().diff
    assert host.state() == before
    assert not host.run().diff


def test_out_of_the_list_and_without_the_package_nothing_is_left(host: Host) -> None:
    host.run("en_us")
    for path in host.cache.iterdir():
        path.unlink()
    host.run()
    assert host.state() == {}


@pytest.mark.parametrize("files", [1, 2, 3, 4])
def test_a_run_that_was_killed_is_finished_by_the_next(host: Host, monkeypatch: Any, files: int) -> None:
    """Killed before the given replacement: of two files when they come, and of two links when they go."""
    replace, left = postgresql_dictionary.os.replace, [files]

    def killed(*arguments: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        replace(*arguments)

    links = host.state()
    with monkeypatch.context() as patch:
        patch.setattr(postgresql_dictionary.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            [host.run(*doubled) for doubled in (["en_us"], [])]
    host.pg_updatedicts()
    host.run("en_us")
    assert host.state()["en_us.dict"] == words("run/Sa", "running/M")
    host.run()
    assert {name: link for name, link in host.state().items() if name[0] != "."} == links


def test_somebody_elses_files_are_refused(host: Host) -> None:
    (host.data / "en_us.dict").unlink()
    (host.data / "en_us.dict").write_text("1\nmine\n")
    before = host.state()
    with pytest.raises(DictionaryError, match="somebody put there"):
        host.run("en_us")
    assert host.state() == before
    assert not host.run().diff
    assert host.state() == before


def test_a_dictionary_of_no_package_is_refused_and_predicted(host: Host) -> None:
    with pytest.raises(DictionaryError, match=r"de_de\.affix and \.dict are missing"):
        host.run("de_de")
    assert host.run("de_de", check=True).diff
    assert host.forms == {"de_de": None}


def test_a_prediction_needs_no_directory(tmp_path: Path) -> None:
    assert Directory(str(tmp_path / "none"), str(tmp_path / "neither"), True).converge(["en_us"]) == {"en_us": None}


def test_a_path_is_no_name(host: Host) -> None:
    with pytest.raises(DictionaryError, match="small letters"):
        host.run("../../etc/en_us")
