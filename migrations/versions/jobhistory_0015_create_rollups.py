"""Create the tables of statistics that outlive the rows, and the triggers that feed them.

Existing executions enter the queue. Meanwhile, others can read the history but not write it.

Revision ID: jobhistory_0015
Revises: jobhistory_0013
Create Date: 2026-11-28
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement

revision = "jobhistory_0015"
down_revision = "jobhistory_0013"
branch_labels = None
depends_on = None

TABLE = "job_history"
QUEUE = "job_history_ended"
ROLLUP = "job_history_rollup"
STATE = "job_history_state"
COUNTS = ["completed", "failed", "partial_success", "cancelled"]
COUNTS += ["retried", "lost", "lost_retried", "unstored"]
LAST_TIMES = ["last_started_at", "last_completed_at", "last_failed_at", "last_lost_at"]


class Statement(ExecutableDDLElement):
    """A statement with `{home}`, the schema and a dot if there is one.

    Not a text, in which a schema named like a parameter would be one.
    """

    def __init__(self, sql) -> None:
        self.sql = sql


@compiles(Statement)
def with_names(ddl, compiler, **options) -> str:
    return ddl.sql.replace("{home}", compiler.preparer.format_table(ddl.target).removesuffix(TABLE))


def upgrade(op=op) -> None:
    create_tables(op)
    if op.get_context().dialect.name == "postgresql":
        first = [REPLICA_IDENTITY, POSTGRESQL_TRIGGERS, COPY_GRANTS]
        last = [GIVE_TO_OWNER]
    else:
        first, last = SQLITE_TRIGGERS, []
    for statement in [*first, QUEUE_HISTORY, *last]:
        run(op, statement)


def run(op, sql) -> None:
    table = sa.table(TABLE, schema=op.get_context().version_table_schema)
    op.execute(Statement(sql).against(table))


def create_tables(op) -> None:
    """Create the tables, unless somebody has dropped only the history table."""
    schema = op.get_context().version_table_schema
    name = sa.String(255)
    moment = sa.DateTime(timezone=True)
    op.create_table(
        QUEUE,
        sa.Column("task_identifier", name, nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("will_retry", sa.Boolean()),
        sa.Column("is_lost", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("is_stored", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("weight", sa.SmallInteger(), nullable=False, server_default="1"),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("completed_at", moment),
        sa.Column("queue_time_ms", sa.BigInteger()),
        sa.Column("execution_time_ms", sa.BigInteger()),
        schema=schema,
        if_not_exists=True,
    )
    op.create_table(
        ROLLUP,
        sa.Column("span", sa.String(5), nullable=False),
        sa.Column("task_identifier", name, nullable=False),
        sa.Column("bucket", moment, nullable=False),
        *(sa.Column(each, sa.BigInteger(), nullable=False, server_default="0") for each in COUNTS),
        *(sa.Column(each, moment) for each in LAST_TIMES),
        *times("execution_time"),
        *times("queue_time"),
        sa.PrimaryKeyConstraint("span", "task_identifier", "bucket", name=op.f(f"pk_{ROLLUP}")),
        schema=schema,
        if_not_exists=True,
    )
    op.create_index(
        f"ix_{ROLLUP}_bucket", ROLLUP, ["span", "bucket"], schema=schema, if_not_exists=True
    )
    op.create_table(
        STATE,
        sa.Column("name", name, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f(f"pk_{STATE}")),
        schema=schema,
        if_not_exists=True,
    )


def times(name) -> list[sa.Column]:
    return [
        sa.Column(f"{name}_sum", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column(f"{name}_max", sa.BigInteger()),
        sa.Column(f"{name}s", sa.LargeBinary()),
    ]


def downgrade(op=op) -> None:
    schema = op.get_context().version_table_schema
    if op.get_context().dialect.name == "postgresql":
        for name in ("queue_inserted", "queue_inserted_many", "queue_updated"):
            run(op, f"DROP FUNCTION {{home}}{TABLE}_{name}() CASCADE")  # and the triggers
    else:
        for name in ("inserted", "ended", "corrected"):
            run(op, f"DROP TRIGGER {{home}}{TABLE}_{name}")
    for table in (STATE, ROLLUP, QUEUE):
        op.drop_table(table, schema=schema)


# Feeding runs as the owner of the functions, so a role that may write history needs no grants on
# the queue. Hence the fixed search path. The trigger of updates has no condition, because
# PostgreSQL would parse it for each statement, which takes longer than the function.
POSTGRESQL_TRIGGERS = """DO $do$
DECLARE
    home text := (
        SELECT quote_ident(nspname) || '.'
        FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = CAST($name${home}job_history$name$ AS regclass)
    );
    intro text := ' RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
        'SET search_path = pg_catalog, pg_temp AS ';
    each record;
BEGIN
    FOR each IN SELECT * FROM (VALUES
        ('queue_inserted()', $body$BEGIN
    QUEUE VALUES (
        NEW.task_identifier, NEW.status, NEW.will_retry,
        coalesce(NEW.error_type = 'jobhistory.WorkerLost', false), 1,
        NEW.started_at, NEW.completed_at, NEW.queue_time_ms, NEW.execution_time_ms);
    RETURN NULL;
END$body$),
        ('queue_inserted_many()', $body$BEGIN
    QUEUE SELECT
        added.task_identifier, added.status, added.will_retry,
        coalesce(added.error_type = 'jobhistory.WorkerLost', false), 1,
        added.started_at, added.completed_at, added.queue_time_ms, added.execution_time_ms
    FROM added WHERE added.status <> 'started';
    RETURN NULL;
END$body$),
        ('queue_updated()', $body$BEGIN
    IF OLD.status = 'started' THEN
        IF NEW.status <> 'started' THEN
            QUEUE VALUES (
        NEW.task_identifier, NEW.status, NEW.will_retry,
        coalesce(NEW.error_type = 'jobhistory.WorkerLost', false), 1,
        NEW.started_at, NEW.completed_at, NEW.queue_time_ms, NEW.execution_time_ms);
        END IF;
    ELSIF NEW.status <> OLD.status
        OR NEW.will_retry IS DISTINCT FROM OLD.will_retry
        OR NEW.error_type IS DISTINCT FROM OLD.error_type
        OR NEW.task_identifier <> OLD.task_identifier
        OR NEW.started_at <> OLD.started_at THEN
        QUEUE VALUES (
        OLD.task_identifier, OLD.status, OLD.will_retry,
        coalesce(OLD.error_type = 'jobhistory.WorkerLost', false), -1,
        OLD.started_at, NULL, NULL, NULL);
        IF NEW.status <> 'started' THEN
            QUEUE VALUES (
        NEW.task_identifier, NEW.status, NEW.will_retry,
        coalesce(NEW.error_type = 'jobhistory.WorkerLost', false), 1,
        NEW.started_at, NEW.completed_at,
        CASE WHEN OLD.queue_time_ms IS NULL THEN NEW.queue_time_ms END,
        CASE WHEN OLD.execution_time_ms IS NULL THEN NEW.execution_time_ms END);
        END IF;
    END IF;
    RETURN NULL;
END$body$)) AS functions (name, body)
    LOOP
        EXECUTE 'CREATE OR REPLACE FUNCTION ' || home || 'job_history_' || each.name || intro
            || quote_literal(replace(each.body, 'QUEUE',
                'INSERT INTO ' || home || 'job_history_ended (
        task_identifier, status, will_retry, is_lost, weight,
        started_at, completed_at, queue_time_ms, execution_time_ms
    )'));
        EXECUTE 'REVOKE ALL ON FUNCTION ' || home || 'job_history_' || each.name || ' FROM PUBLIC';
    END LOOP;
    FOR each IN SELECT * FROM (VALUES
        ('inserted', 'INSERT', $when$FOR EACH ROW WHEN (
            NEW.status <> 'started' AND current_setting('jobhistory.bulk', true)
                IS DISTINCT FROM 'on')$when$),
        ('inserted_many', 'INSERT', $when$REFERENCING NEW TABLE AS added FOR EACH STATEMENT
            WHEN (current_setting('jobhistory.bulk', true) = 'on')$when$),
        ('updated', 'UPDATE OF status, will_retry, error_type, task_identifier, started_at',
            'FOR EACH ROW')
    ) AS triggers (name, event, condition)
    LOOP
        EXECUTE 'DROP TRIGGER IF EXISTS job_history_' || each.name
            || ' ON ' || home || 'job_history';  -- so that this also repairs
        EXECUTE 'CREATE TRIGGER job_history_' || each.name || ' AFTER ' || each.event
            || ' ON ' || home || 'job_history ' || each.condition
            || ' EXECUTE FUNCTION ' || home || 'job_history_queue_' || each.name || '()';
    END LOOP;
END $do$"""

SQLITE_TRIGGERS = [
    """CREATE TRIGGER {home}job_history_inserted AFTER INSERT ON job_history
WHEN NEW.status <> 'started'
BEGIN
    INSERT INTO job_history_ended (
        task_identifier, status, will_retry, is_lost, weight,
        started_at, completed_at, queue_time_ms, execution_time_ms
    ) VALUES (
        NEW.task_identifier, NEW.status, NEW.will_retry,
        coalesce(NEW.error_type = 'jobhistory.WorkerLost', false), 1,
        NEW.started_at, NEW.completed_at, NEW.queue_time_ms, NEW.execution_time_ms);
END""",
    """CREATE TRIGGER {home}job_history_ended AFTER UPDATE OF status ON job_history
WHEN OLD.status = 'started' AND NEW.status <> 'started'
BEGIN
    INSERT INTO job_history_ended (
        task_identifier, status, will_retry, is_lost, weight,
        started_at, completed_at, queue_time_ms, execution_time_ms
    ) VALUES (
        NEW.task_identifier, NEW.status, NEW.will_retry,
        coalesce(NEW.error_type = 'jobhistory.WorkerLost', false), 1,
        NEW.started_at, NEW.completed_at, NEW.queue_time_ms, NEW.execution_time_ms);
END""",
    """CREATE TRIGGER {home}job_history_corrected
AFTER UPDATE OF status, will_retry, error_type, task_identifier, started_at ON job_history
WHEN OLD.status <> 'started' AND (
        NEW.status <> OLD.status
        OR NEW.will_retry IS NOT OLD.will_retry
        OR NEW.error_type IS NOT OLD.error_type
        OR NEW.task_identifier <> OLD.task_identifier
        OR NEW.started_at <> OLD.started_at
    )
BEGIN
    INSERT INTO job_history_ended (
        task_identifier, status, will_retry, is_lost, weight,
        started_at, completed_at, queue_time_ms, execution_time_ms
    ) VALUES (
        OLD.task_identifier, OLD.status, OLD.will_retry,
        coalesce(OLD.error_type = 'jobhistory.WorkerLost', false), -1,
        OLD.started_at, NULL, NULL, NULL);
    INSERT INTO job_history_ended (
        task_identifier, status, will_retry, is_lost, weight,
        started_at, completed_at, queue_time_ms, execution_time_ms
    ) SELECT
        NEW.task_identifier, NEW.status, NEW.will_retry,
        coalesce(NEW.error_type = 'jobhistory.WorkerLost', false), 1,
        NEW.started_at, NEW.completed_at,
        CASE WHEN OLD.queue_time_ms IS NULL THEN NEW.queue_time_ms END,
        CASE WHEN OLD.execution_time_ms IS NULL THEN NEW.execution_time_ms END
        WHERE NEW.status <> 'started';
END""",
]

# A publication of all tables would refuse deletions from a table without a key.
REPLICA_IDENTITY = "ALTER TABLE {home}job_history_ended REPLICA IDENTITY FULL"

# Not if row-level security limits what roles may read: these tables count what all roles wrote.
COPY_GRANTS = """DO $do$
DECLARE
    history oid := CAST($name${home}job_history$name$ AS regclass);
    home text := (
        SELECT quote_ident(nspname) || '.'
        FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = history
    );
    each record;
BEGIN
    FOR each IN
        SELECT privilege_type, name,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
        FROM pg_class, aclexplode(relacl),
            unnest(ARRAY['job_history_ended', 'job_history_rollup', 'job_history_state']) AS name
        WHERE pg_class.oid = history AND grantee <> relowner
            AND (NOT relrowsecurity OR name = 'job_history_state')
            AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE 'GRANT ' || each.privilege_type || ' ON ' || home || each.name
            || ' TO ' || each.role;
    END LOOP;
END $do$"""

# A superuser, or a member of the role that owns the history, may migrate. The tables and functions
# then go to that role, unless it may not own them, as without CREATE on the schema.
GIVE_TO_OWNER = """DO $do$
DECLARE
    history oid := CAST($name${home}job_history$name$ AS regclass);
    home text;
    owner text;
    each text;
BEGIN
    SELECT quote_ident(nspname) || '.', quote_ident(pg_get_userbyid(relowner)) INTO home, owner
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.oid = history;
    FOREACH each IN ARRAY ARRAY[
        'TABLE job_history_ended', 'TABLE job_history_rollup', 'TABLE job_history_state',
        'FUNCTION job_history_queue_inserted()', 'FUNCTION job_history_queue_inserted_many()',
        'FUNCTION job_history_queue_updated()'
    ] LOOP
        EXECUTE 'ALTER ' || replace(each, ' ', ' ' || home) || ' OWNER TO ' || owner;
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END $do$"""

QUEUE_HISTORY = """INSERT INTO {home}job_history_ended (
    task_identifier, status, will_retry, is_lost,
    started_at, completed_at, queue_time_ms, execution_time_ms
)
SELECT
    task_identifier, status, will_retry, coalesce(error_type = 'jobhistory.WorkerLost', false),
    started_at, completed_at, queue_time_ms, execution_time_ms
FROM {home}job_history
WHERE status <> 'started'"""
