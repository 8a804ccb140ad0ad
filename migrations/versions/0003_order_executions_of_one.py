"""Order the executions of one task, job and so on, as they are asked for.

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-24
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLE = "job_history"
OF_ONE = {
    "ix_job_history_job_id_started_at": ("job_id", None),
    "ix_job_history_task_identifier_started_at": ("task_identifier", None),
    "ix_job_history_worker_id_started_at": ("worker_id", None),
    "ix_job_history_failed_task_identifier_started_at": ("task_identifier", "error_type"),
    "ix_job_history_error_type_started_at": ("error_type", "error_type"),
    "ix_job_history_partial_task_identifier_started_at": ("task_identifier", "failed_steps"),
}
UNORDERED = "ix_job_history_correlation_id"
ORDERED = "ix_job_history_correlation_id_started_at"


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    started_at = "started_at"
    if op.get_context().dialect.name == "postgresql":
        # An order that the index of all executions has not got: it must not be thought of.
        started_at = sa.text("started_at NULLS FIRST")
        replace_indexes(started_at)
    op.create_index(ORDERED, TABLE, ["correlation_id", started_at], schema=schema)
    op.drop_index(UNORDERED, table_name=TABLE, schema=schema)


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    if op.get_context().dialect.name == "postgresql":
        replace_indexes("started_at")
    op.create_index(UNORDERED, TABLE, ["correlation_id"], schema=schema)
    op.drop_index(ORDERED, table_name=TABLE, schema=schema)


def replace_indexes(started_at: str | sa.TextClause) -> None:
    schema = op.get_context().version_table_schema
    for name, (column, only) in OF_ONE.items():
        where = None if only is None else sa.text(f"{only} IS NOT NULL")
        op.drop_index(name, table_name=TABLE, schema=schema)
        op.create_index(name, TABLE, [column, started_at], schema=schema, postgresql_where=where)
