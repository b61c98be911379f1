"""The site that the unit tests run as: no service is needed. pytest names it in $STANDIN_SETTINGS."""

EXTERNAL_HOST = "chat.example.com"
ZULIP_ADMINISTRATOR = "admin@example.com"
ALLOWED_HOSTS = ["testserver"]
SECRET_KEY = "not a secret"
SHARED_SECRET = "not a secret either"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
STORAGES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
LOG_DIR = "/nonexistent"
RATE_LIMITING_RULES = {"api_by_user": [(60, 50)]}
