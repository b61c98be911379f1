"""Makes the secrets that a site lacks and adds them to the text of its secrets file."""

from __future__ import annotations

import datetime
import fcntl
import os
import re
import secrets
import string
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

_ALNUM = string.ascii_letters + string.digits
_DJANGO = string.ascii_lowercase + string.digits + "!@#$%^&*(-_=+)"
_CA_DAYS = 3650

HEADER = """\
---
# Secrets of this site, made by playbooks/secrets.yml, which adds what is missing and never changes what is here.
# Edit with: ansible-vault edit. Lose neither this file nor its password: the internal CA is in here.
"""


class SecretsError(Exception):
    """Says in one line why nothing was written and what to do."""


def _pick(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


# None of these can end an ini value, a URL or a shell word, but for django_key: Zulip reads that one raw.
_SIMPLE: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "password": lambda entry: _pick(_ALNUM, entry.get("length", 32)),
    "hex32": lambda entry: secrets.token_hex(32),
    "alnum64": lambda entry: _pick(_ALNUM, 64),
    "django_key": lambda entry: _pick(_DJANGO, 50),
    "uuid4": lambda entry: str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)),
    "erlang_cookie": lambda entry: _pick(string.ascii_uppercase, 32),
}
# Kinds of two halves: the option of the schema that names the second half.
_PAIRS = {"ca": "certificate", "ssh_ed25519": "public"}


def make_ca_key() -> str:
    """Return a private key for a CA, PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )


def make_ca_certificate(key_pem: str, common_name: str) -> str:
    """Return a self-signed CA certificate for a key, PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = serialization.load_pem_private_key(key_pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("it is no EC key")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    # A day back, since the hosts' clocks need not agree with this one yet.
    start = datetime.datetime.now(datetime.UTC).replace(microsecond=0) - datetime.timedelta(days=1)
    usage = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def make_ssh_key() -> str:
    """Return an Ed25519 private key in OpenSSH's form."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return (
        ed25519.Ed25519PrivateKey.generate()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        .decode()
    )


def make_ssh_public(private: str, comment: str) -> str:
    """Return the public line of an OpenSSH private key."""
    from cryptography.hazmat.primitives import serialization

    public = serialization.load_ssh_private_key(private.encode(), password=None).public_key()
    line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return f"{line} {comment}"


def missing(schema: Mapping[str, Mapping[str, Any]], present: Mapping[str, Any]) -> list[str]:
    """Return the names of the schema, second halves included, that are not set or empty."""
    names = []
    for name, entry in schema.items():
        names.append(name)
        half = _PAIRS.get(entry["kind"])
        if half:
            names.append(entry[half])
    return [name for name in names if not present.get(name)]


def make(schema: Mapping[str, Mapping[str, Any]], present: Mapping[str, Any], site_name: str) -> dict[str, str]:
    """Return a value for each missing secret. A missing second half is derived from the first, never the other way."""
    absent = set(missing(schema, present))
    made: dict[str, str] = {}
    for name, entry in schema.items():
        kind = entry["kind"]
        if kind in _SIMPLE:
            if name in absent:
                made[name] = _SIMPLE[kind](entry)
            continue
        if kind not in _PAIRS:
            raise SecretsError(f"the schema gives `{name}` the unknown kind {kind}; correct the schema")
        second = entry[_PAIRS[kind]]
        if name in absent and second not in absent:
            raise SecretsError(
                f"`{second}` is there and its private key `{name}` is not; "
                f"restore the key, or remove `{second}` to get a new pair"
            )
        if name in absent:
            made[name] = make_ca_key() if kind == "ca" else make_ssh_key()
        if second in absent:
            private = made.get(name) or str(present[name])
            try:
                made[second] = (
                    make_ca_certificate(private, f"{site_name} CA")
                    if kind == "ca"
                    else make_ssh_public(private, f"{site_name} uploads")
                )
            except Exception as error:  # a key of the operator's may be anything; its text must not be in the message
                raise SecretsError(
                    f"`{second}` cannot be made, since the private key in `{name}` is not readable "
                    f"({type(error).__name__}); correct or remove `{name}`"
                ) from None
    return made


def parse(text: str, file: Path) -> dict[str, Any]:
    """Return the variables of a secrets file."""

    class Loader(yaml.SafeLoader):
        """Takes a value with a tag of Ansible (!vault, !unsafe) for what it is: present."""

    Loader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix} {node.value}")
    try:
        data = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise SecretsError(f"{file} is no YAML{line}; correct it with ansible-vault edit {file}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise SecretsError(f"{file} holds no `name: value` lines; correct it with ansible-vault edit {file}")
    return data


def _lines(name: str, value: str) -> str:
    """Return a variable as YAML."""
    if "\n" in value:
        return f"{name}: |\n" + "".join(f"  {line}\n" for line in value.splitlines())
    return f"{name}: '" + value.replace("'", "''") + "'\n"


def compose(text: str, made: Mapping[str, str], file: Path) -> str:
    """Return the text with the new variables: what is there stays letter for letter, empty variables get values."""
    before = parse(text, file)
    result = text if text.strip() else HEADER
    if not result.endswith("\n"):
        result += "\n"
    for name, value in made.items():
        empty = re.compile(rf"^{re.escape(name)}:[ \t]*(?:''|\"\"|null|~)?[ \t]*(?:#.*)?\n", re.MULTILINE)
        lines = _lines(name, value)
        if name in before:
            result, count = empty.subn(lambda _match, lines=lines: lines, result)  # type: ignore[misc]
            if count != 1:
                raise SecretsError(f"`{name}` in {file} is empty; remove it with ansible-vault edit {file}")
        else:
            result += lines
    # The one guard against whatever YAML an operator may write: the result has to say what was there and what is new.
    try:
        after = parse(result, file)
    except SecretsError:
        after = {}
    if after != {**before, **made}:
        raise SecretsError(f"{file} cannot be extended at its end; write it as plain `name: value` lines")
    return result


def revise(text: str, values: Mapping[str, str], file: Path, why: str) -> str:
    """Return the text with other values for secrets that are there; each old line stays above as a comment, with why.

    What is not there is added. All else stays letter for letter.
    """
    before = parse(text, file)
    result = text
    for name, value in values.items():
        if before.get(name) in (None, "", value):
            continue
        # On one line, and what follows belongs to something else.
        line = re.compile(rf"^{re.escape(name)}:[ \t].*\n(?![ \t])", re.MULTILINE)

        def revised(found: re.Match[str], name: str = name, value: str = value) -> str:
            return f"# {why}: {found.group()}" + _lines(name, value)

        result, count = line.subn(revised, result if result.endswith("\n") else result + "\n")
        if count != 1:
            raise SecretsError(f"`{name}` in {file} is not on one line of its own; change it with ansible-vault edit")
    new = {name: value for name, value in values.items() if before.get(name) in (None, "")}
    result = compose(result, new, file) if new else result
    if parse(result, file) != {**before, **values}:
        raise SecretsError(f"{file} cannot be changed line by line; change it with ansible-vault edit {file}")
    return result


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, so that two runs do not overwrite each other's secrets."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def replace(file: Path, content: bytes) -> None:
    """Put a file in place in one step: whenever we are killed, it is the old one or the new one."""
    # Hidden, since Ansible reads every other file here as variables. One name, so that a killed run leaves one at most.
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
