"""The data, in the shape of Zulip's own tables where that is what an operator sees."""

import secrets
import string

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models.functions import Lower
from django.utils.timezone import now

_ALPHANUMERIC = string.ascii_letters + string.digits


def generate_api_key() -> str:
    """32 random letters and digits, as Zulip's keys."""
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(32))


class Realm(models.Model):
    """The organisation. There is one, at the root domain."""

    name = models.CharField(max_length=40)
    string_id = models.CharField(max_length=40, unique=True, default="")
    description = models.TextField(default="", blank=True)
    deactivated = models.BooleanField(default=False)
    date_created = models.DateTimeField(default=now)

    def __str__(self) -> str:
        return self.name


class Role(models.IntegerChoices):
    """Zulip's numbers and names."""

    OWNER = 100, "owner"
    ADMIN = 200, "admin"
    MODERATOR = 300, "moderator"
    MEMBER = 400, "member"
    GUEST = 600, "guest"


class UserManager(BaseUserManager["UserProfile"]):
    """Finds a user by e-mail in any case."""

    def get_by_natural_key(self, email: str) -> "UserProfile":
        return self.get(email=email.strip().lower())


class UserProfile(AbstractBaseUser):
    """A person or a bot. E-mail addresses are stored in lower case."""

    realm = models.ForeignKey(Realm, on_delete=models.CASCADE)
    email = models.EmailField(unique=True)
    full_name = models.CharField(max_length=100)
    role = models.PositiveSmallIntegerField(choices=Role.choices, default=Role.MEMBER)
    is_active = models.BooleanField(default=True)
    is_bot = models.BooleanField(default=False)
    # An outgoing webhook bot is told of its direct messages here.
    webhook_url = models.URLField(default="", blank=True)
    api_key = models.CharField(max_length=32, unique=True, default=generate_api_key)
    date_joined = models.DateTimeField(default=now)

    USERNAME_FIELD = "email"
    objects = UserManager()

    @property
    def is_admin(self) -> bool:
        """Administrators and owners."""
        return self.role <= Role.ADMIN


class Stream(models.Model):
    """A channel."""

    realm = models.ForeignKey(Realm, on_delete=models.CASCADE)
    name = models.CharField(max_length=60)
    description = models.TextField(default="", blank=True)
    invite_only = models.BooleanField(default=False)
    creator = models.ForeignKey(UserProfile, null=True, on_delete=models.SET_NULL)
    date_created = models.DateTimeField(default=now)

    class Meta:
        constraints = [models.UniqueConstraint(models.F("realm"), Lower("name"), name="zerver_stream_realm_name")]


class Subscription(models.Model):
    """A user's membership of a channel; one row for good, active or not."""

    user = models.ForeignKey(UserProfile, on_delete=models.CASCADE)
    stream = models.ForeignKey(Stream, on_delete=models.CASCADE)
    active = models.BooleanField(default=True)
    color = models.CharField(max_length=10, default="#76ce90")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "stream"], name="zerver_subscription_unique")]


class Recipient(models.Model):
    """Where a message goes: a channel, or the set of people in `user_ids` (sorted, comma separated)."""

    stream = models.OneToOneField(Stream, null=True, on_delete=models.CASCADE)
    user_ids = models.CharField(max_length=1000, null=True, unique=True)

    @property
    def participants(self) -> list[int]:
        """Ids of the people in a direct conversation."""
        return [int(user_id) for user_id in (self.user_ids or "").split(",") if user_id]


class Message(models.Model):
    """One message. On PostgreSQL the table has a column search_tsvector too, which process_fts_updates fills."""

    realm = models.ForeignKey(Realm, on_delete=models.CASCADE)
    sender = models.ForeignKey(UserProfile, on_delete=models.CASCADE)
    recipient = models.ForeignKey(Recipient, on_delete=models.CASCADE)
    subject = models.CharField(max_length=60, db_index=True)
    content = models.TextField()
    rendered_content = models.TextField()
    date_sent = models.DateTimeField(default=now, db_index=True)
    sending_client = models.CharField(max_length=30, default="")


class UserMessage(models.Model):
    """That a user received a message, and the flags on it."""

    READ, STARRED = 1, 2
    FLAGS = {"read": READ, "starred": STARRED}

    user = models.ForeignKey(UserProfile, on_delete=models.CASCADE)
    message = models.ForeignKey(Message, on_delete=models.CASCADE)
    flags = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "message"], name="zerver_usermessage_unique")]

    @staticmethod
    def flag_names(flags: int) -> list[str]:
        """The names of the bits that are set."""
        return [name for name, bit in UserMessage.FLAGS.items() if flags & bit]


class Attachment(models.Model):
    """An uploaded file; `messages` are those that refer to it."""

    realm = models.ForeignKey(Realm, on_delete=models.CASCADE)
    owner = models.ForeignKey(UserProfile, on_delete=models.CASCADE)
    file_name = models.TextField()
    path_id = models.CharField(max_length=500, unique=True)
    size = models.BigIntegerField()
    create_time = models.DateTimeField(default=now, db_index=True)
    messages = models.ManyToManyField(Message)


class ScheduledMessage(models.Model):
    """A message to be sent later; `delivered_message` is set in the transaction that sends it."""

    sender = models.ForeignKey(UserProfile, on_delete=models.CASCADE)
    recipient = models.ForeignKey(Recipient, on_delete=models.CASCADE)
    subject = models.CharField(max_length=60, default="")
    content = models.TextField()
    scheduled_timestamp = models.DateTimeField(db_index=True)
    delivered_message = models.ForeignKey(Message, null=True, on_delete=models.SET_NULL)
    delivered = models.BooleanField(default=False)


class ScheduledEmail(models.Model):
    """A mail to be sent later; the row is deleted in the transaction that sends it."""

    user = models.ForeignKey(UserProfile, on_delete=models.CASCADE)
    # A mail about a missed message is dropped when the message has been read in the meantime.
    message = models.ForeignKey(Message, null=True, on_delete=models.CASCADE)
    subject = models.TextField()
    body = models.TextField()
    scheduled_timestamp = models.DateTimeField(db_index=True)


class UserActivity(models.Model):
    """How often, and when last, a client made a kind of request."""

    user = models.ForeignKey(UserProfile, on_delete=models.CASCADE)
    client = models.CharField(max_length=30)
    query = models.CharField(max_length=50)
    count = models.PositiveIntegerField(default=0)
    last_visit = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "client", "query"], name="zerver_useractivity_unique")]


class RealmCount(models.Model):
    """Analytics: the value of a property at the end of an hour."""

    realm = models.ForeignKey(Realm, on_delete=models.CASCADE)
    property = models.CharField(max_length=32)
    end_time = models.DateTimeField()
    value = models.BigIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["realm", "property", "end_time"], name="zerver_realmcount_unique")
        ]
