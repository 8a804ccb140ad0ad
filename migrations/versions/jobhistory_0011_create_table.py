"""Create the history table.

Revision ID: jobhistory_0011
Revises:
Create Date: 2026-11-23
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement

revision = "jobhistory_0011"
down_revision = None
branch_labels = None
depends_on = None


class SetFillfactor(ExecutableDDLElement):
    """Leaves room on each page for the new versions of rows, which heap-only updates need.

    It is a separate statement, because tables have no option for it in SQLAlchemy 2.0.
    """


@compiles(SetFillfactor)
def alter_fillfactor(ddl, compiler, **options) -> str:
    return f"ALTER TABLE {compiler.preparer.format_table(ddl.target)} SET (fillfactor = 80)"


def upgrade(op=op) -> None:
    name = sa.String(255)
    moment = sa.DateTime(timezone=True)
    # TEXT on SQLite, where a column declared as JSON has numeric affinity: a document that is a
    # single number would become a number of SQLite.
    json = sa.JSON().with_variant(JSONB(), "postgresql").with_variant(sa.Text(), "sqlite")
    schema = op.get_context().version_table_schema
    op.create_table(
        "job_history",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", name, nullable=False),
        sa.Column("correlation_id", name, nullable=False),
        sa.Column("parent_id", sa.Uuid()),
        sa.Column("trace_id", sa.String(32)),
        sa.Column("span_id", sa.String(16)),
        sa.Column("task_identifier", name, nullable=False),
        sa.Column("worker_id", name, nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("attempt_number", sa.Integer(), nullable=False),
        sa.Column("labels", json),
        sa.Column("payload", json),
        sa.Column("payload_is_exact", sa.Boolean()),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("completed_at", moment),
        sa.Column("queue_time_ms", sa.BigInteger()),
        sa.Column("execution_time_ms", sa.BigInteger()),
        sa.Column("heartbeat_at", moment),
        sa.Column("progress", sa.Float()),
        sa.Column("expires_at", moment),
        sa.Column("will_retry", sa.Boolean()),
        sa.Column("error_type", name),
        sa.Column("error_message", sa.Text()),
        sa.Column("error_stack", sa.Text()),
        sa.Column("completed_steps", json),
        sa.Column("failed_steps", json),
        sa.Column("retry_from_step", sa.Text()),
        sa.Column("partial_results", json),
        sa.Column("result", json),
        sa.Column("log_tail", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_history")),
        sa.CheckConstraint(
            "status IN ('started', 'completed', 'failed', 'partial_success', 'cancelled')",
            name=op.f("ck_job_history_status"),
        ),
        schema=schema,
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute(SetFillfactor().against(sa.table("job_history", schema=schema)))


def downgrade(op=op) -> None:
    op.drop_table("job_history", schema=op.get_context().version_table_schema)
