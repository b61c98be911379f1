"""An example of /etc/zulip/settings.py. A build, which knows of no site, collects static files with it."""

EXTERNAL_HOST = "chat.example.com"
ZULIP_ADMINISTRATOR = "admin@example.com"
ALLOWED_HOSTS: list[str] = []

REMOTE_POSTGRES_HOST = "127.0.0.1"
REMOTE_POSTGRES_PORT = 5432
REMOTE_POSTGRES_SSLMODE = "prefer"

RABBITMQ_HOST = "127.0.0.1"
REDIS_HOST = "127.0.0.1"
MEMCACHED_LOCATION = "127.0.0.1:11211"

LOCAL_UPLOADS_DIR = "/home/zulip/uploads"
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
