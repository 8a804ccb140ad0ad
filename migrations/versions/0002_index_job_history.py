"""Index the history table, for expiry and for every question that is asked of it.

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-23
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_job_history_expires_at": ["expires_at"],
    "ix_job_history_correlation_id": ["correlation_id"],
    "ix_job_history_job_id_started_at": ["job_id", "started_at"],
    "ix_job_history_started_at": ["started_at"],
    "ix_job_history_task_identifier_started_at": ["task_identifier", "started_at"],
    "ix_job_history_worker_id_started_at": ["worker_id", "started_at"],
}
PARTIAL_INDEXES = {
    "error_type": {
        "ix_job_history_failed_started_at": ["started_at"],
        "ix_job_history_failed_task_identifier_started_at": ["task_identifier", "started_at"],
        "ix_job_history_error_type_started_at": ["error_type", "started_at"],
    },
    "failed_steps": {
        "ix_job_history_partial_started_at": ["started_at"],
        "ix_job_history_partial_task_identifier_started_at": ["task_identifier", "started_at"],
    },
}


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    for name, columns in INDEXES.items():
        op.create_index(name, "job_history", columns, schema=schema)
    for only, indexes in PARTIAL_INDEXES.items():
        where = sa.text(f"{only} IS NOT NULL")
        for name, columns in indexes.items():
            op.create_index(
                name,
                "job_history",
                columns,
                schema=schema,
                postgresql_where=where,
                sqlite_where=where,
            )


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    for name in [*INDEXES, *(name for group in PARTIAL_INDEXES.values() for name in group)]:
        op.drop_index(name, table_name="job_history", schema=schema)
