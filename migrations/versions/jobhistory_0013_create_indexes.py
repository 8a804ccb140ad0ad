"""Create the indexes of the history table, for expiry and for each kind of read.

Revision ID: jobhistory_0013
Revises: jobhistory_0011
Create Date: 2026-11-28
"""

import sqlalchemy as sa
from alembic import op

revision = "jobhistory_0013"
down_revision = "jobhistory_0011"
branch_labels = None
depends_on = None

TABLE = "job_history"
# Name, the column before started_at and id, and the column that is not NULL in a partial index.
BY_START = [
    ("ix_job_history_started_at", None, None),
    ("ix_job_history_failed_started_at", None, "error_type"),
    ("ix_job_history_partial_started_at", None, "failed_steps"),
    ("ix_job_history_correlation_id_started_at", "correlation_id", None),
    ("ix_job_history_job_id_started_at", "job_id", None),
    ("ix_job_history_task_identifier_started_at", "task_identifier", None),
    ("ix_job_history_worker_id_started_at", "worker_id", None),
    ("ix_job_history_error_type_started_at", "error_type", "error_type"),
    ("ix_job_history_failed_task_identifier_started_at", "task_identifier", "error_type"),
    ("ix_job_history_partial_task_identifier_started_at", "task_identifier", "failed_steps"),
]
BY_EXPIRY = "ix_job_history_expires_at"
RUNNING = "ix_job_history_running"


def upgrade(op=op) -> None:
    is_postgresql = op.get_context().dialect.name == "postgresql"
    create_index(op, BY_EXPIRY, ["expires_at"], None)
    for name, column, only in BY_START:
        # Two orders keep PostgreSQL from using the index of all executions for failures.
        differs = is_postgresql and (column is None) != (only is None)
        started_at = sa.text("started_at NULLS FIRST") if differs else "started_at"
        columns = [started_at, "id"] if column is None else [column, started_at, "id"]
        create_index(op, name, columns, only)
    if is_postgresql:
        create_index_of_running(op)
    else:  # it would not leave updates heap-only, which SQLite does not know
        schema = op.get_context().version_table_schema
        where = sa.text("status = 'started'")
        op.create_index(RUNNING, TABLE, ["started_at", "id"], schema=schema, sqlite_where=where)


def create_index_of_running(op) -> None:
    """Index the executions that run by a BRIN index, which updates of `status` leave heap-only.

    Before PostgreSQL 16, they would not be heap-only any more. SQL for offline use cannot know the
    version of the server, so the server itself decides.
    """
    op.execute(
        f"""DO $$ BEGIN
    IF current_setting('server_version_num')::int >= 160000 THEN
        CREATE INDEX ix_job_history_status ON {qualified(op, TABLE)}
        USING brin (status) WITH (pages_per_range = 8, autosummarize = on);
    END IF;
END $$"""
    )


def qualified(op, name) -> str:
    schema = op.get_context().version_table_schema
    # Not the dialect's quoting, which doubles percent signs: op.execute does so, too.
    names = [each.replace('"', '""').replace(":", r"\:") for each in (schema, name) if each]
    return ".".join(f'"{each}"' for each in names)


def create_index(op, name, columns, only) -> None:
    where = None if only is None else sa.text(f"{only} IS NOT NULL")
    op.create_index(
        name,
        TABLE,
        columns,
        schema=op.get_context().version_table_schema,
        postgresql_where=where,
        sqlite_where=where,
    )


def downgrade(op=op) -> None:
    schema = op.get_context().version_table_schema
    for name in [BY_EXPIRY, *(name for name, *_ in BY_START)]:
        op.drop_index(name, table_name=TABLE, schema=schema)
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"DROP INDEX IF EXISTS {qualified(op, 'ix_job_history_status')}")
    else:
        op.drop_index(RUNNING, table_name=TABLE, schema=schema)
