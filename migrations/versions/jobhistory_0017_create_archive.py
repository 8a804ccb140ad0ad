"""Create the manifest of archives.

Revision ID: jobhistory_0017
Revises: jobhistory_0016
Create Date: 2026-11-28
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement

revision = "jobhistory_0017"
down_revision = "jobhistory_0016"
branch_labels = None
depends_on = None

TABLE = "job_history"
ARCHIVE = "job_history_archive"


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
    schema = op.get_context().version_table_schema
    moment = sa.DateTime(timezone=True)
    op.create_table(
        ARCHIVE,
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("byte_count", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("file_digest", sa.String(64), nullable=False),
        sa.Column("first_started_at", moment),
        sa.Column("last_started_at", moment),
        sa.Column("archived_at", moment, nullable=False),
        sa.Column("pending", sa.Text()),
        sa.Column("published_at", moment),
        sa.PrimaryKeyConstraint("location", "file", name=op.f(f"pk_{ARCHIVE}")),
        schema=schema,
        if_not_exists=True,
    )
    is_unpublished = sa.text("published_at IS NULL")
    op.create_index(
        f"ix_{ARCHIVE}_unpublished",
        ARCHIVE,
        ["location"],
        schema=schema,
        if_not_exists=True,
        postgresql_where=is_unpublished,
        sqlite_where=is_unpublished,
    )
    if op.get_context().dialect.name == "postgresql":
        table = sa.table(TABLE, schema=schema)
        for sql in (COPY_GRANTS, GIVE_TO_OWNER):
            op.execute(Statement(sql).against(table))


def downgrade(op=op) -> None:
    op.drop_table(ARCHIVE, schema=op.get_context().version_table_schema)


# Not if row-level security limits what roles may read: the manifest tells about all tasks.
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
        SELECT privilege_type,
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
        FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid = history AND grantee <> relowner AND NOT relrowsecurity
            AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE 'GRANT ' || each.privilege_type || ' ON ' || home || 'job_history_archive'
            || ' TO ' || each.role;
    END LOOP;
END $do$"""

# A superuser, or a member of the role that owns the history, may migrate. The table then goes to
# that role, unless it may not own it, as without CREATE on the schema.
GIVE_TO_OWNER = """DO $do$
DECLARE
    history oid := CAST($name${home}job_history$name$ AS regclass);
    home text;
    owner text;
BEGIN
    SELECT quote_ident(nspname) || '.', quote_ident(pg_get_userbyid(relowner)) INTO home, owner
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.oid = history;
    EXECUTE 'ALTER TABLE ' || home || 'job_history_archive OWNER TO ' || owner;
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END $do$"""
