#!/usr/bin/python
"""Give PostgreSQL's spelling dictionaries the forms in which a consonant is doubled."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_dictionary
short_description: Make doubled consonants known to PostgreSQL's text search dictionaries
description:
  - Debian makes PostgreSQL's dictionaries of the hunspell packages. In the English ones I(running) is an entry of its
    own and no form of I(run), because no rule of theirs doubles a consonant.
  - Writes, for each name in O(doubled), a dictionary that has these rules too, made of the files in O(source). Every
    entry that is an I(ing), I(ed) or I(er)/I(est) form of another entry with its last consonant doubled becomes that
    entry's form as well. It stays an entry, and no word is known that was not known before.
  - The new files take the place of the links that Debian's C(pg_updatedicts) made in O(directory). That program leaves
    files alone, so neither it nor an update of a package undoes them. The packages' own files are not touched.
  - Where a name is no longer in O(doubled), Debian's link comes back.
options:
  directory:
    description: PostgreSQL's C(tsearch_data).
    type: path
    required: true
  doubled:
    description: Names of dictionaries, such as V(en_us).
    type: list
    elements: str
    default: []
  source:
    description: Where C(pg_updatedicts) writes.
    type: path
    default: /var/cache/postgresql/dicts
attributes:
  check_mode:
    description: Predicts, also where the packages are not installed yet.
    support: full
  diff_mode:
    description: Shows the lines that change.
    support: full
notes:
  - A session that has used a dictionary keeps what it read until it ends.
author: zulip-ha
"""

EXAMPLES = r"""
- name: Dictionaries | Double the consonants
  postgresql_dictionary:
    directory: /usr/share/postgresql/15/tsearch_data
    doubled: [en_us]
"""

RETURN = r"""
forms:
  description: Name of each dictionary to how many forms it was given, null in check mode without the package.
  returned: success
  type: dict
  sample: {en_us: 1141}
"""

import os
import re
import string
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

# The first line of an affix file of ours, which is how it is known again.
MARK = "# Written by zulip-ha, out of "
NAME = re.compile(r"[a-z0-9_]+")
ENTRY = re.compile(r"^([^/\s]+)(?:/(\S+))?", re.MULTILINE)
SUFFIX = re.compile(r"^SFX\s+(\S)\s+\S+\s+(ing|ed|er|est)\s", re.MULTILINE)
# `running`; and `steppe`, out of which a rule of its own makes `stepping`.
DOUBLED = re.compile(r"([a-z]+([bcdfghjklmnpqrstvz]))\2(?:(ing|ed|er|est)|e?)")
# One vowel between consonants: `run`, `commit`, `quiz`; not `ear` (earring), `in` (inning), `of` (offing).
SINGLE_VOWEL = re.compile(r"[a-z]*(?:[^aeiou]|qu)[aeiouy][^aeiouwxy]")
# Consonants that a word's own end doubles: where there is `tell`, `telling` comes of it and not of `tel`.
DOUBLE_AT_THE_END = "flsz"
# Lines of an affix file whose second word is no flag.
TEXT_LINES = {"HOME", "ICONV", "KEY", "LANG", "MAP", "NAME", "OCONV", "REP", "SET", "TRY", "VERSION", "WORDCHARS"}


class DictionaryError(Exception):
    """Why a dictionary cannot be written, in one line."""


class Made(NamedTuple):
    """The contents of a dictionary's two files, and what they have more than their source: `run` to `running`."""

    affix: str
    words: str
    forms: dict[str, list[str]]


def doubled_forms(affix: str, entries: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return the known forms that double a consonant, as ending and form, of each entry that has some."""
    makers: dict[str, set[str]] = {}
    for flag, ending in SUFFIX.findall(affix):
        makers.setdefault(ending, set()).add(flag)
    found: dict[str, dict[str, str]] = {}
    for word, flags in entries.items():
        doubled = DOUBLED.fullmatch(word)
        if not doubled:
            continue
        base, consonant, ending = doubled.groups()
        endings = [ending] if ending else [ending for ending, own in makers.items() if own & set(flags)]
        itself = consonant in DOUBLE_AT_THE_END and (base + consonant in entries or base + consonant + "e" in entries)
        if base in entries and not itself and SINGLE_VOWEL.fullmatch(base):
            found.setdefault(base, {}).update((ending, base + consonant + ending) for ending in endings)
    for forms in found.values():
        # `bigger` is a form of `big` because there is `biggest`; `letter` is none of `let`, nor `matter` of `mat`.
        if not {"er", "est"} <= forms.keys():
            forms.pop("er", None)
            forms.pop("est", None)
    return {base: forms for base, forms in sorted(found.items()) if forms}


def free_flag(affix: str, entries: dict[str, str]) -> str:
    """Return a letter or digit that is no flag yet."""
    used = set().union(*entries.values())
    for line in affix.splitlines():
        kind, value = [*line.split(), "", ""][:2]
        if kind == "AF" or (kind == "FLAG" and value != "UTF-8"):
            raise DictionaryError("its flags are not single characters, which is all that is understood here")
        if not kind.startswith("#") and kind not in TEXT_LINES:
            used |= set(value)
    flag = next((flag for flag in string.ascii_letters + string.digits if flag not in used), "")
    if not flag:
        raise DictionaryError("each letter and digit is a flag already: none is left for more rules")
    return flag


def make(affix: str, words: str, origin: str) -> Made:
    """Return the dictionary that has the doubled forms as well."""
    entries: dict[str, str] = {}
    for word, flags in ENTRY.findall(words):
        entries[word] = entries.get(word, "") + flags
    found = doubled_forms(affix, entries)
    flag = free_flag(affix, entries)
    bases: dict[str, list[str]] = {}
    for base, forms in found.items():
        for ending in forms:
            bases.setdefault(base[-1] + ending, []).append(base)
    # The condition is a regular expression that PostgreSQL ends with `$`, and names the words. A mere `m` would make
    # `programmer` a form of `gram`: behind a prefix PostgreSQL does not ask whether the word has the suffix's flag.
    rules = [f"SFX {flag} 0 {suffix} ^({'|'.join(of)})" for suffix, of in sorted(bases.items())]
    heading = ["", f"SFX {flag} N {len(rules)}"] if rules else []

    def flagged(entry: re.Match[str]) -> str:
        return f"{entry[1]}/{entry[2] or ''}{flag}" if entry[1] in found else entry[0]

    return Made(
        affix="\n".join([f"{MARK}{origin}; changes are lost.", affix.rstrip(), *heading, *rules, ""]),
        words=ENTRY.sub(flagged, words),
        forms={base: list(forms.values()) for base, forms in found.items()},
    )


def read(path: Path) -> str | None:
    """Return a file's content; None where there is no file, or a link."""
    if path.is_symlink() or not path.exists():
        return None
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def write(path: Path, content: str) -> None:
    """Replace a file at once."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Directory:
    """The dictionaries in PostgreSQL's directory, and Debian's that they are made of."""

    def __init__(self, path: str, source: str, check_mode: bool) -> None:
        self.path, self.source, self.check_mode = Path(path), Path(source), check_mode
        self.diff: list[dict[str, str]] = []

    def is_ours(self, name: str) -> bool:
        """Tell whether a dictionary is ours: its affix file is the first of the two to come and the last to go."""
        return (read(self.path / f"{name}.affix") or "").startswith(MARK)

    def change(self, path: Path, before: str, after: str) -> None:
        """Note the lines of a file that change."""
        old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
        gone, come = set(old).difference(new), set(new).difference(old)
        self.diff.append(
            {
                "before_header": str(path),
                "after_header": str(path),
                "before": "".join(line for line in old if line in gone),
                "after": "".join(line for line in new if line in come),
            }
        )

    def double(self, name: str) -> int | None:
        """Write a dictionary where it is not there yet; return how many forms it was given."""
        # In this order: a rule whose flag no word has yet does no harm.
        paths = self.path / f"{name}.affix", self.path / f"{name}.dict"
        present = [read(path) for path in paths]
        if present != [None, None] and not self.is_ours(name):
            raise DictionaryError(f"{paths[0]} and {paths[1].name} are files that somebody put there: move them away")
        source = [read(self.source / path.name) for path in paths]
        if source[0] is None or source[1] is None:
            if not self.check_mode:
                raise DictionaryError(
                    f"{self.source}/{name}.affix and .dict are missing: no hunspell package brings them"
                )
            self.change(paths[0], "", f"{MARK}{self.source / name}\n")
            return None
        try:
            made = make(source[0], source[1], f"{self.source / name}.affix and .dict")
        except DictionaryError as error:
            raise DictionaryError(f"{self.source / name}.affix: {error}") from None
        for path, content, here, origin in zip(paths, made[:2], present, source, strict=True):
            if here != content:
                # What PostgreSQL read so far is the link's target.
                self.change(path, origin or "" if here is None else here, content)
                if not self.check_mode:
                    write(path, content)
        return sum(map(len, made.forms.values()))

    def restore(self, name: str) -> None:
        """Put Debian's links back."""
        for path in (self.path / f"{name}.dict", self.path / f"{name}.affix"):
            target = self.source / path.name
            if path.is_symlink():
                continue
            self.change(path, read(path) or "", read(target) or "")
            if self.check_mode:
                continue
            if target.exists():
                link = path.with_name(f".{path.name}.link")
                link.unlink(missing_ok=True)
                link.symlink_to(target)
                os.replace(link, path)
            else:
                path.unlink(missing_ok=True)

    def converge(self, doubled: list[str]) -> dict[str, int | None]:
        """Bring all dictionaries to what is wanted; return the forms of each."""
        if wrong := [name for name in doubled if not NAME.fullmatch(name)]:
            raise DictionaryError(f"{', '.join(wrong)}: a dictionary's name has small letters, digits and _ alone")
        for name in sorted(path.stem for path in self.path.glob("*.affix")):
            if name not in doubled and self.is_ours(name):
                self.restore(name)
        return {name: self.double(name) for name in doubled}


def main() -> None:
    """Run the module."""
    arguments: dict[str, Any] = {
        "directory": {"type": "path", "required": True},
        "doubled": {"type": "list", "elements": "str", "default": []},
        "source": {"type": "path", "default": "/var/cache/postgresql/dicts"},
    }
    module = AnsibleModule(argument_spec=arguments, supports_check_mode=True)
    directory = Directory(module.params["directory"], module.params["source"], module.check_mode)
    try:
        forms = directory.converge(module.params["doubled"])
    except (DictionaryError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(directory.diff), forms=forms, diff=directory.diff)


if __name__ == "__main__":
    main()
