"""Django's settings, computed from the site's files in /etc/zulip.

The site may set every name in the first part, and may replace anything that is computed below it.
"""

import os
from pathlib import Path
from typing import Any

from zproject.config import config_dir, load_settings, read_ini, read_sharding, settings_path

DEPLOY_ROOT = Path(__file__).resolve().parent.parent
ZULIP_VERSION = (DEPLOY_ROOT / "VERSION").read_text().strip()
ZULIP_FEATURE_LEVEL = 400

# --- What a site may set, with Zulip's names and defaults ---
EXTERNAL_HOST = ""
ALLOWED_HOSTS: list[str] = []
ZULIP_ADMINISTRATOR = ""
REMOTE_POSTGRES_HOST = ""
REMOTE_POSTGRES_PORT = 5432
REMOTE_POSTGRES_SSLMODE = "verify-full"
RABBITMQ_HOST = "127.0.0.1"
RABBITMQ_PORT = 5672
RABBITMQ_USERNAME = "zulip"
RABBITMQ_VHOST = "/"
REDIS_HOST = "127.0.0.1"
REDIS_PORT = 6379
MEMCACHED_LOCATION = "127.0.0.1:11211"
MEMCACHED_USERNAME = "zulip@localhost"
LOCAL_UPLOADS_DIR = "/home/zulip/uploads"
MAX_FILE_UPLOAD_SIZE = 100  # MiB
EMAIL_BACKEND = ""
EMAIL_HOST = ""
NOREPLY_EMAIL_ADDRESS = ""
MISSED_MESSAGE_EMAIL_DELAY_SECS = 120
RATE_LIMITING = True
# Domain -> (seconds, requests) pairs; a request must pass each pair.
RATE_LIMITING_RULES: dict[str, list[tuple[int, int]]] = {}
TORNADO_QUEUE_DIR = "/home/zulip/tornado"
LOG_DIR = "/var/log/zulip"
STATIC_ROOT = str(DEPLOY_ROOT / "prod-static" / "serve")

_site = load_settings(settings_path())
globals().update(_site)

# --- Secrets and host-wide files ---
_secrets = read_ini(config_dir() / "zulip-secrets.conf")
_zulip_conf = read_ini(config_dir() / "zulip.conf")


def _secret(name: str) -> str:
    return _secrets.get("secrets", name, fallback="")


SECRET_KEY = _secret("secret_key")
SHARED_SECRET = _secret("shared_secret")
AVATAR_SALT = _secret("avatar_salt")
RABBITMQ_PASSWORD = _secret("rabbitmq_password")
REDIS_PASSWORD = _secret("redis_password")
MEMCACHED_PASSWORD = _secret("memcached_password")
SHARDING = read_sharding(config_dir() / "sharding.json")

# --- Django ---
DEBUG = False
ROOT_URLCONF = "zproject.urls"
WSGI_APPLICATION = "zproject.wsgi.application"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"]
INSTALLED_APPS += ["django.contrib.staticfiles", "zerver"]
MIDDLEWARE = [
    "zerver.middleware.RealIpMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "zerver.UserProfile"
LANGUAGE_CODE = "en-us"
USE_TZ = True
TIME_ZONE = "UTC"

# A health probe asks for 127.0.0.1; nginx passes on the name that the client used.
_external_name = EXTERNAL_HOST.rsplit(":", 1)[0]
ALLOWED_HOSTS = [*ALLOWED_HOSTS, _external_name, "127.0.0.1", "localhost"]
CSRF_TRUSTED_ORIGINS = [f"https://{EXTERNAL_HOST}"]
CSRF_FAILURE_VIEW = "zerver.views.errors.csrf_failure"
CSRF_COOKIE_NAME = "__Host-csrftoken"
CSRF_COOKIE_SECURE = True
SESSION_COOKIE_NAME = "__Host-sessionid"
SESSION_COOKIE_SECURE = True
SESSION_ENGINE = "django.contrib.sessions.backends.cached_db"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/login/"

STATIC_URL = "/static/"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
FILE_UPLOAD_PERMISSIONS = 0o644

DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _zulip_conf.get("postgresql", "database_name", fallback="zulip"),
        "USER": _zulip_conf.get("postgresql", "database_user", fallback="zulip"),
        "PASSWORD": _secret("postgres_password"),
        "HOST": REMOTE_POSTGRES_HOST,
        "PORT": REMOTE_POSTGRES_PORT,
        # Sessions live long, but one that a failover or a proxy has cut is noticed before it is used again.
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
        # Behind a pooler in transaction mode neither cursors nor prepared statements outlive a transaction.
        "DISABLE_SERVER_SIDE_CURSORS": True,
        "OPTIONS": {"connect_timeout": 10, "prepare_threshold": None},
    }
}
if REMOTE_POSTGRES_HOST:
    DATABASES["default"]["OPTIONS"]["sslmode"] = REMOTE_POSTGRES_SSLMODE or "verify-full"
    if "," in REMOTE_POSTGRES_HOST:
        # Of several hosts, the one that can be written to.
        DATABASES["default"]["OPTIONS"]["target_session_attrs"] = "read-write"

CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "zerver.lib.cache.MemcachedCache",
        "LOCATION": MEMCACHED_LOCATION,
        "TIMEOUT": 7 * 86400,
        "OPTIONS": {"username": MEMCACHED_USERNAME, "password": MEMCACHED_PASSWORD},
    }
}

RATE_LIMITING_RULES = {
    "api_by_user": [(60, 200)],
    "api_by_ip": [(60, 100)],
    "authenticate_by_username": [(1800, 5)],
    **RATE_LIMITING_RULES,
}

if not EMAIL_BACKEND:
    EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_HOST else 'dummy'}.EmailBackend"
EMAIL_TIMEOUT = 20
DEFAULT_FROM_EMAIL = NOREPLY_EMAIL_ADDRESS or f"noreply@{_external_name}"

_handlers: dict[str, dict[str, Any]] = {"stderr": {"class": "logging.StreamHandler", "formatter": "default"}}
if os.access(LOG_DIR, os.W_OK):
    # Several processes append, and logrotate moves the files away below them.
    _file = {"class": "logging.handlers.WatchedFileHandler", "formatter": "default", "delay": True}
    _handlers["server"] = {**_file, "filename": f"{LOG_DIR}/server.log"}
    _handlers["errors"] = {**_file, "filename": f"{LOG_DIR}/errors.log", "level": "WARNING"}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"default": {"format": "%(asctime)s %(levelname)s [%(name)s:%(process)d] %(message)s"}},
    "handlers": _handlers,
    "root": {"level": "INFO", "handlers": list(_handlers)},
    # Django's own handlers would mail the administrator and print twice; pika reports each lost connection many times.
    "loggers": {
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "pika": {"level": "CRITICAL"},
        "tornado.access": {"level": "ERROR"},
        # Refused requests are in nginx's log; only failures belong here.
        "django.request": {"level": "ERROR"},
    },
}

# Whatever else the site sets wins over the above; these three have been merged with its values already.
_merged = {"ALLOWED_HOSTS", "RATE_LIMITING_RULES", "EMAIL_BACKEND"}
globals().update({name: value for name, value in _site.items() if name not in _merged})
