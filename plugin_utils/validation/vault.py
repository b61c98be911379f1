"""What the given vault passwords are, and how to say that none of them opens a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HEADER = b"$ANSIBLE_VAULT;"
ROOT = Path(__file__).resolve().parents[2]
LAB_PASSWORD = ROOT / "lab" / "vault-password"
HOW = "--vault-password-file FILE, --ask-vault-pass or ANSIBLE_VAULT_PASSWORD_FILE"


def source(secret: Any) -> str | None:
    """Return the file or program that a vault secret was read from; None when it was typed in."""
    name = getattr(secret, "filename", None)
    return os.fspath(name) if name else None


def is_lab(secret: Any) -> bool:
    """Tell whether a vault secret is the lab's own, which ansible.cfg adds to every run."""
    name = source(secret)
    return name is not None and os.path.realpath(name) == os.path.realpath(LAB_PASSWORD)


def own_secrets(secrets: Iterable[tuple[str, Any]] | None) -> list[tuple[str, Any]]:
    """Return the secrets that the operator gave, without the lab's."""
    return [(label, secret) for label, secret in secrets or () if not is_lab(secret)]


def complaint(file: Path, secrets: Iterable[tuple[str, Any]] | None) -> str:
    """Return the one line for a file that none of the secrets opens."""
    secrets = list(secrets or ())
    own = own_secrets(secrets)
    if not secrets:
        return f"{file} is encrypted and no vault password was given; give it by {HOW}"
    if not own:
        return f"{file} is encrypted and no vault password but the lab's own was given; give its password by {HOW}"
    places = ", ".join(source(secret) or "the prompt" for _label, secret in own)
    return f"{file} does not open with the vault password from {places}; give the right one by {HOW}"
