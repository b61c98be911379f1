"""The release that a channel was created by."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("zerver", "0002_full_text_search")]
    operations = [
        migrations.AddField("stream", "created_in", models.CharField(max_length=40, null=True)),
    ]
