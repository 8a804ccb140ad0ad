"""Create the tables of expectations and incidents.

Revision ID: jobhistory_0016
Revises: jobhistory_0015
Create Date: 2026-11-28
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement

revision = "jobhistory_0016"
down_revision = "jobhistory_0015"
branch_labels = None
depends_on = None

TABLE = "job_history"
EXPECTATION = "job_history_expectation"
INCIDENT = "job_history_incident"


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
    name = sa.String(255)
    moment = sa.DateTime(timezone=True)
    json = sa.JSON().with_variant(JSONB(), "postgresql").with_variant(sa.Text(), "sqlite")
    op.create_table(
        EXPECTATION,
        sa.Column("name", name, nullable=False),
        sa.Column("task_identifier", name, nullable=False),
        sa.Column("definition", json, nullable=False),
        sa.Column("source", name),
        sa.Column("declared_at", moment, nullable=False),
        sa.Column("checked_at", moment),
        sa.PrimaryKeyConstraint("name", name=op.f(f"pk_{EXPECTATION}")),
        schema=schema,
        if_not_exists=True,
    )
    op.create_table(
        INCIDENT,
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("expectation", name, nullable=False),
        sa.Column("task_identifier", name, nullable=False),
        sa.Column("problem", sa.String(32), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("slots", json, nullable=False),
        sa.Column("executions", json, nullable=False),
        sa.Column("opened_at", moment, nullable=False),
        sa.Column("seen_at", moment, nullable=False),
        sa.Column("closed_at", moment),
        sa.Column("notified", sa.String(8)),
        sa.Column("notified_at", moment),
        sa.Column("claimed_until", moment),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{INCIDENT}")),
        schema=schema,
        if_not_exists=True,
    )
    is_open = sa.text("closed_at IS NULL")
    op.create_index(
        f"ix_{INCIDENT}_open",
        INCIDENT,
        ["expectation", "problem"],
        unique=True,
        schema=schema,
        if_not_exists=True,
        postgresql_where=is_open,
        sqlite_where=is_open,
    )
    op.create_index(
        f"ix_{INCIDENT}_opened_at", INCIDENT, ["opened_at"], schema=schema, if_not_exists=True
    )
    if op.get_context().dialect.name == "postgresql":
        table = sa.table(TABLE, schema=schema)
        for sql in (COPY_GRANTS, GIVE_TO_OWNER):
            op.execute(Statement(sql).against(table))


def downgrade(op=op) -> None:
    schema = op.get_context().version_table_schema
    for table in (INCIDENT, EXPECTATION):
        op.drop_table(table, schema=schema)


# Not if row-level security limits what roles may read: incidents tell about all tasks.
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
            unnest(ARRAY['job_history_expectation', 'job_history_incident']) AS name
        WHERE pg_class.oid = history AND grantee <> relowner AND NOT relrowsecurity
            AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE 'GRANT ' || each.privilege_type || ' ON ' || home || each.name
            || ' TO ' || each.role;
    END LOOP;
END $do$"""

# A superuser, or a member of the role that owns the history, may migrate. The tables then go to
# that role, unless it may not own them, as without CREATE on the schema.
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
    FOREACH each IN ARRAY ARRAY['job_history_expectation', 'job_history_incident'] LOOP
        EXECUTE 'ALTER TABLE ' || home || each || ' OWNER TO ' || owner;
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
    NULL;
END $do$"""
