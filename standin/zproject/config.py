"""Reads the files in /etc/zulip that this server shares with the rest of the host."""

import configparser
import json
import os
import runpy
from pathlib import Path
from typing import Any

LINKED_SETTINGS = Path(__file__).with_name("prod_settings.py")


def settings_path() -> Path:
    """The site's settings: $STANDIN_SETTINGS, or what the release's prod_settings.py links to."""
    return Path(os.environ.get("STANDIN_SETTINGS") or LINKED_SETTINGS)


def config_dir() -> Path:
    """Where zulip.conf, zulip-secrets.conf and sharding.json are: beside the settings."""
    return settings_path().parent if "STANDIN_SETTINGS" in os.environ else Path("/etc/zulip")


def load_settings(path: Path) -> dict[str, Any]:
    """Run the site's settings file and return the names that Django would take for settings."""
    return {name: value for name, value in runpy.run_path(str(path)).items() if name.isupper()}


def read_ini(path: Path) -> configparser.ConfigParser:
    """Parse an ini file literally: a secret may contain `%`. An absent file is empty, an unreadable one an error."""
    parser = configparser.ConfigParser(interpolation=None)
    if path.exists():
        with path.open() as stream:
            parser.read_file(stream)
    return parser


def read_sharding(path: Path) -> dict[str, Any]:
    """The content of sharding.json; none, or `{}`, is one shard."""
    return json.loads(path.read_text()) if path.exists() else {}
