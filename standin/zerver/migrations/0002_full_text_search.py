"""The full-text search index of messages, its configuration, and the log from which process_fts_updates fills it."""

from typing import Any

from django.db import migrations

# Zulip's hunspell dictionary and stop words are used where the database host has them in tsearch_data.
FORWARD = """
CREATE TEXT SEARCH CONFIGURATION english_us_search (COPY = pg_catalog.english);
DO $$
BEGIN
    CREATE TEXT SEARCH DICTIONARY english_us_hunspell
        (TEMPLATE = ispell, DictFile = en_us, AffFile = en_us, StopWords = zulip_english);
    ALTER TEXT SEARCH CONFIGURATION english_us_search
        ALTER MAPPING FOR asciiword, asciihword, hword_asciipart, word, hword, hword_part
        WITH english_us_hunspell, english_stem;
EXCEPTION
    WHEN config_file_error OR undefined_file THEN
        RAISE NOTICE 'no hunspell dictionary: searching with the stemmer alone';
END $$;

ALTER TABLE zerver_message ADD COLUMN search_tsvector tsvector;
CREATE INDEX zerver_message_search_tsvector ON zerver_message USING gin (search_tsvector);
CREATE TABLE fts_update_log (id bigserial PRIMARY KEY, message_id bigint NOT NULL);

CREATE FUNCTION do_notify_fts_update_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY fts_update_log;
    RETURN NEW;
END $$;
CREATE TRIGGER fts_update_log_notify AFTER INSERT ON fts_update_log
    FOR EACH STATEMENT EXECUTE FUNCTION do_notify_fts_update_log();

CREATE FUNCTION append_to_fts_update_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fts_update_log (message_id) VALUES (NEW.id);
    RETURN NEW;
END $$;
CREATE TRIGGER zerver_message_update_search_tsvector AFTER INSERT OR UPDATE OF subject, content ON zerver_message
    FOR EACH ROW EXECUTE FUNCTION append_to_fts_update_log();
"""


def create(apps: Any, schema_editor: Any) -> None:
    """Only PostgreSQL has this; other databases search by substring."""
    if schema_editor.connection.vendor == "postgresql":
        # With parameters given as None, a per cent sign in the SQL is no placeholder.
        schema_editor.execute(FORWARD, params=None)


class Migration(migrations.Migration):
    dependencies = [("zerver", "0001_initial")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop, elidable=False)]
