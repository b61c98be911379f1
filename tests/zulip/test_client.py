"""The lab's own tests of the `zulip` client, against a real server: send, long poll, databases, upload, download."""

from __future__ import annotations

from tests.lab.test_client import (  # noqa: F401
    test_a_message_reaches_a_long_poll_within_a_second_and_both_databases,
    test_a_message_to_a_channel_and_an_upload_come_back_the_same,
)
