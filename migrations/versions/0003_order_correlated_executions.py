"""Index the executions of a correlation id in their order, for pages of them.

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-24
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UNORDERED = "ix_job_history_correlation_id"
ORDERED = "ix_job_history_correlation_id_started_at"


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    op.create_index(ORDERED, "job_history", ["correlation_id", "started_at"], schema=schema)
    op.drop_index(UNORDERED, table_name="job_history", schema=schema)


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.create_index(UNORDERED, "job_history", ["correlation_id"], schema=schema)
    op.drop_index(ORDERED, table_name="job_history", schema=schema)
