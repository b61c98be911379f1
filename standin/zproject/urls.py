"""Addresses, as Zulip has them. The addresses of events belong to Tornado, and nginx sends them there."""

from django.contrib.auth.views import LogoutView
from django.urls import path
from zerver.lib.rest import basic_or_session_user, make_view, rest_path
from zerver.views import accounts, health, home, messages, registration, streams, uploads, users

urlpatterns = [
    path("", home.home),
    path("login/", accounts.LoginView.as_view()),
    path("logout/", LogoutView.as_view()),
    path("health", health.health),
    path("user_uploads/temporary/<str:token>/<str:file_name>", uploads.serve_temporary),
    path("user_uploads/<path:path_id>", make_view({"GET": uploads.serve_file}, basic_or_session_user)),
    *rest_path("server_settings", anonymous=True, GET=accounts.server_settings),
    *rest_path("fetch_api_key", anonymous=True, POST=accounts.fetch_api_key),
    *rest_path("register", POST=registration.register),
    *rest_path("users", GET=users.get_users),
    *rest_path("users/me", GET=users.get_profile),
    *rest_path("users/me/presence", POST=users.update_presence),
    *rest_path(
        "users/me/subscriptions",
        GET=streams.get_subscriptions,
        POST=streams.add_subscriptions,
        DELETE=streams.remove_subscriptions,
    ),
    *rest_path("users/me/<int:stream_id>/topics", GET=streams.get_topics),
    *rest_path("users/<int:user_id>", GET=users.get_user),
    *rest_path("streams", GET=streams.get_streams),
    *rest_path("get_stream_id", GET=streams.get_stream_id),
    *rest_path("messages", GET=messages.get_messages, POST=messages.send),
    *rest_path("messages/flags", POST=messages.update_message_flags),
    *rest_path("messages/<int:message_id>", GET=messages.get_message),
    *rest_path("scheduled_messages", POST=messages.schedule),
    *rest_path("typing", POST=users.send_typing),
    *rest_path("user_uploads", POST=uploads.upload_file),
    *rest_path("user_uploads/<path:path_id>", GET=uploads.temporary_url),
]
handler404 = "zerver.views.errors.not_found"
handler500 = "zerver.views.errors.server_error"
