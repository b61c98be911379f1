"""Django's view of this application."""

from django.apps import AppConfig


class ZerverConfig(AppConfig):
    name = "zerver"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect the signal handlers."""
        from zerver import signals  # noqa: F401
