"""Fills a virtualenv: from requirement files, from uv's lock file, with replacements and additions."""

from __future__ import annotations

import re
from pathlib import Path

from .requirements import Requirements, canonical, name_of
from .workshop import TAIL, Failure, Workshop

_NOT_FOUND = re.compile(r"No matching distribution found for (?P<name>.+)|satisfies the requirement (?P<other>.+?) \(")
_COLLECTING = re.compile(r"^\s*(?:Collecting|Processing|Obtaining) (?P<what>.+?)(?: \(from .*)?$", re.MULTILINE)
_GIT = re.compile(r"^\s*fatal: (?P<why>.+)$", re.MULTILINE)
_HTTP = re.compile(r"HTTP error (?P<code>\d+) while getting (?P<url>\S+)")
_NETWORK = re.compile(
    r"(?:\[Errno -?\d+\] |(?=certificate verify failed|Read timed out|Tunnel connection failed))([^'\"():]+)"
)
_NO_HASH = re.compile(r"Can't verify hashes for these requirements .*\n\s+(?P<what>\S+)")
_OTHER_HASH = re.compile(r"DO NOT MATCH THE HASHES.*\n\s+(?P<what>\S+)")
ADVICE = "give an index in release_pip_environment or a replacement in release_requirement_replacements"


def reason(output: str) -> tuple[str, str]:
    """Return which requirement pip could not get, and why; nothing when it failed for another reason."""
    last = _COLLECTING.findall(output)
    collected = last[-1] if last else ""
    network = _NETWORK.findall(output)
    if found := _NO_HASH.search(output):
        return found["what"], "its file is in a repository, and the others are checked by hashes"
    if found := _OTHER_HASH.search(output):
        return found["what"].rstrip(":"), "what was offered has not the hash that the release wants"
    if found := _NOT_FOUND.search(output):
        why = f"no index answered ({network[-1].strip()})" if network else "no index has it for this Python"
        return (found["name"] or found["other"]).strip(), why
    if found := _HTTP.search(output):
        return collected, f"{found['url']} answers {found['code']}"
    if "did not run successfully" in output and (fatal := _GIT.findall(output)):
        return collected, f"git says {fatal[-1]}"
    if network and collected and "Could not install packages due to an OSError" in output:
        return collected, network[-1].strip()
    return "", ""


class Pip:
    """pip of one virtualenv."""

    def __init__(self, shop: Workshop, venv: Path):
        self.shop = shop
        self.venv = venv

    def install(self, *arguments: str, wheels_alone: bool) -> None:
        """Install; a requirement that cannot be had is named."""
        command = [str(self.venv / "bin/python"), "-m", "pip", "install"]
        command += ["--no-compile", "--no-input", "--progress-bar=off"]
        if wheels_alone:
            # Nobody's setup.py runs here, and no compiler is needed.
            command.append("--only-binary=:all:")
            command += [f"--no-binary={name}" for name in self.shop.spec["built_packages"]]
        code, output = self.shop.try_run([*command, *arguments], self.shop.scratch)
        if not code:
            return
        tail = "\n".join([line for line in output.splitlines() if line.strip()][-TAIL:])
        what, why = reason(output)
        if what:
            name = what if not name_of(what) else re.split(r"[\s@]", what, maxsplit=1)[0]
            raise Failure(f"the requirement {name} cannot be had: {why}; {ADVICE}", tail)
        errors = [line for line in output.splitlines() if line.lower().startswith("error:")]
        last = errors[-1] if errors else next((line for line in reversed(output.splitlines()) if line.strip()), "")
        raise Failure(f"pip failed with {code}: {last}", tail)


def export_lock(shop: Workshop, tree: Path) -> Path:
    """Return uv's lock file as a requirement file, made by uv from PyPI in a virtualenv of its own."""
    wanted = shop.spec["uv_export"]
    shop.say(f"uv export of the group {wanted['group']}")
    tools = shop.folder("uv")
    shop.run([shop.python, "-m", "venv", str(tools)], shop.scratch)
    Pip(shop, tools).install(wanted["uv"], wheels_alone=False)
    exported = tools / "requirements.txt"
    shop.run(
        [
            *(str(tools / "bin/uv"), "export", "--frozen", "--quiet", "--no-emit-project", "--no-annotate"),
            *(f"--only-group={wanted['group']}", "--format=requirements-txt", f"--output-file={exported}"),
        ],
        tree,
        # Its own Python would be downloaded, and is not the hosts'.
        {"UV_PYTHON": shop.python, "UV_PYTHON_DOWNLOADS": "never", "UV_CACHE_DIR": str(tools / "cache")},
    )
    return exported


def requirement_files(shop: Workshop, tree: Path) -> list[Path]:
    """Return the release's requirement files."""
    files = [tree / name for name in shop.spec["requirements"]]
    for path in files:
        if not path.is_file():
            raise Failure(f"the release has no file of requirements {path.relative_to(tree)}")
    return files


def fill(shop: Workshop, tree: Path, venv: Path) -> None:
    """Install what the release asks for."""
    spec = shop.spec
    pip = Pip(shop, venv)
    replacements = {canonical(name): instead for name, instead in spec["replacements"].items()}
    files = requirement_files(shop, tree)
    if spec["uv_export"]:
        files.append(export_lock(shop, tree))
    options: list[str] = []
    instead: list[str] = []
    if replacements:
        kept = Requirements()
        for path in files:
            kept.read(path, set(replacements))
        instead = [replacements[name] for name in sorted(kept.dropped) if replacements[name]]
        if kept.hashed:
            # The files name every dependency, and one that was taken out must not come back through another.
            options.append("--no-deps")
        path = shop.scratch / "requirements.txt"
        path.write_text("\n".join(kept.lines) + "\n", encoding="utf-8")
        files = [path]
        shop.say(f"replaced or left out: {', '.join(sorted(kept.dropped)) or 'none'}")
        if unknown := sorted(set(replacements) - kept.dropped - {name_of(line) for line in spec["extra_requirements"]}):
            shop.note(f"release_requirement_replacements names what no requirement file has: {', '.join(unknown)}")
    if files:
        pip.install(
            *options,
            *(word for path in files for word in ("--requirement", str(path))),
            wheels_alone=spec["binary_only"],
        )
    add_extra(shop, pip, replacements, spec["extra_requirements"])
    if instead:
        # Where a file is named there is nothing to choose from; it may well be a source.
        pip.install("--no-deps", *instead, wheels_alone=spec["binary_only"])


def add_extra(shop: Workshop, pip: Pip, replacements: dict[str, str], extra: list[str]) -> None:
    """Install what the contract adds to the release's own requirements, unless the operator replaced it."""
    wanted = [replacements.get(name_of(line), line) for line in extra]
    if any(wanted):
        pip.install(*filter(None, wanted), wheels_alone=shop.spec["binary_only"])
