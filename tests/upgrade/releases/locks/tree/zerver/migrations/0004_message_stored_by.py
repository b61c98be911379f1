"""The release that stored a message."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("zerver", "0003_stream_created_in")]
    operations = [
        migrations.AddField("message", "stored_by", models.CharField(max_length=40, null=True)),
    ]
