-- What a planned move would break off, as one JSON object: transactions older than :seconds, crons that hold their lock, and backups.
-- No texts of queries, which hold what people wrote.
WITH sessions AS (
    SELECT pid, usename, datname, client_addr, application_name, state, backend_type,
           extract(epoch FROM clock_timestamp() - xact_start)::bigint AS seconds
    FROM pg_stat_activity
    WHERE pid <> pg_backend_pid()
)
SELECT json_build_object(
    'transactions', (
        SELECT coalesce(json_agg(json_build_object('pid', pid, 'user', usename, 'database', datname, 'client', client_addr,
            'application', application_name, 'state', state, 'seconds', seconds) ORDER BY seconds DESC), '[]')
        FROM sessions WHERE backend_type = 'client backend' AND seconds >= :seconds
    ),
    'runs', (
        SELECT coalesce(json_agg(json_build_object('application', application_name, 'client', client_addr) ORDER BY application_name), '[]')
        FROM sessions
        WHERE application_name LIKE 'singleton cron-%' OR application_name LIKE 'pgBackRest%'
            OR pid IN (SELECT pid FROM pg_stat_progress_basebackup)
    )
);
