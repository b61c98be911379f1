"""The client of a message gets the name that it has in the API."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("zerver", "0004_message_stored_by")]
    operations = [migrations.RenameField("message", "sending_client", "client_name")]
