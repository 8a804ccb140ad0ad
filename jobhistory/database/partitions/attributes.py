"""Everything about a table that `CREATE TABLE (LIKE ... INCLUDING ALL)` does not copy."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import BigInteger, Connection, Engine, String, bindparam, text
from sqlalchemy.exc import IntegrityError

from jobhistory.database import exclusive
from jobhistory.database.partitions.sql import run
from jobhistory.errors import reason

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attributes:
    """The statements that give a table the attributes of another one.

    Attributes:
        indexes: its keys and indexes, for a table of the same name.
        keys: its foreign keys, for a table of the same name.
        triggers: its triggers, for a table of the same name.
        access: its owner, privileges and policies.
        others: comments, and settings of columns and of replication.
    """

    indexes: tuple[str, ...]
    keys: tuple[str, ...]
    triggers: tuple[str, ...]
    access: tuple[str, ...]
    others: tuple[str, ...]


@dataclass(frozen=True)
class IncomingKeys:
    """The foreign keys of other tables, as statements.

    Attributes:
        drops, adds: these block writers of both tables, but read no rows.
        validations: these read the other tables, and block nobody.
    """

    drops: tuple[str, ...]
    adds: tuple[str, ...]
    validations: tuple[str, ...]


# A privilege that somebody else than the owner granted is granted by the owner again.
_ATTRIBUTES = text("""
WITH history AS (SELECT * FROM pg_class WHERE oid = :oid),
privileges AS (
    SELECT 1 AS step, grantee, privilege_type AS privilege, is_grantable
        FROM history, aclexplode(coalesce(relacl, acldefault('r', relowner)))
    UNION ALL
    SELECT 1, grantee, format('%s (%I)', privilege_type, attname), is_grantable
        FROM pg_attribute, aclexplode(attacl) WHERE attrelid = :oid AND NOT attisdropped
),
strangers AS (
    SELECT grantee FROM pg_default_acl, aclexplode(defaclacl) WHERE defaclobjtype = 'r'
    UNION
    SELECT grantee FROM pg_class, aclexplode(relacl) WHERE pg_class.oid = :replaced
),
policies AS (
    SELECT pg_policy.*, (
        SELECT string_agg(CASE role WHEN 0 THEN 'PUBLIC' ELSE
            quote_ident(pg_get_userbyid(role)) END, ', ') FROM unnest(polroles) AS role
    ) AS roles, CASE polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
        WHEN 'd' THEN 'DELETE' ELSE 'ALL' END AS command
    FROM pg_policy WHERE polrelid = :oid
)
SELECT 'indexes' AS kind, 1 AS step,
    format('ALTER TABLE %s ADD CONSTRAINT %I %s', :target, conname, pg_get_constraintdef(oid))
        AS statement
    FROM pg_constraint WHERE conrelid = :oid AND contype IN ('p', 'u')
UNION ALL
SELECT 'indexes', 2, pg_get_indexdef(indexrelid)
    FROM pg_index WHERE indrelid = :oid AND indisvalid
        AND NOT EXISTS (SELECT FROM pg_constraint
            WHERE conindid = indexrelid AND conrelid = :oid AND contype IN ('p', 'u'))
UNION ALL
SELECT 'indexes', 3, format('COMMENT ON INDEX %s IS %L',
        CAST(indexrelid AS regclass), obj_description(indexrelid, 'pg_class'))
    FROM pg_index WHERE indrelid = :oid AND indisvalid
        AND obj_description(indexrelid, 'pg_class') IS NOT NULL
UNION ALL
SELECT 'keys', 1,
    format('ALTER TABLE %s ADD CONSTRAINT %I %s', :target, conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE conrelid = :oid AND contype = 'f'
UNION ALL
SELECT 'keys', 2, format('COMMENT ON CONSTRAINT %I ON %s IS %L', conname, :target,
        obj_description(oid, 'pg_constraint'))
    FROM pg_constraint WHERE conrelid = :oid AND contype IN ('p', 'u', 'f')
        AND obj_description(oid, 'pg_constraint') IS NOT NULL
UNION ALL
SELECT 'triggers', 1, pg_get_triggerdef(oid)
    FROM pg_trigger WHERE tgrelid = :oid AND NOT tgisinternal
UNION ALL
SELECT 'triggers', 2, format('ALTER TABLE %s %s TRIGGER %I', :target, CASE tgenabled
        WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END, tgname)
    FROM pg_trigger WHERE tgrelid = :oid AND NOT tgisinternal AND tgenabled <> 'O'
UNION ALL
SELECT 'triggers', 3, format('COMMENT ON TRIGGER %I ON %s IS %L', tgname, :target,
        obj_description(oid, 'pg_trigger'))
    FROM pg_trigger WHERE tgrelid = :oid AND NOT tgisinternal
        AND obj_description(oid, 'pg_trigger') IS NOT NULL
UNION ALL
SELECT 'access', 0, format('ALTER TABLE %s OWNER TO %I', :target, pg_get_userbyid(relowner))
    FROM history WHERE pg_get_userbyid(relowner) <> current_user
UNION ALL
SELECT 'access', 1, format('REVOKE ALL ON %s FROM %s', :target,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
    FROM strangers
UNION ALL
SELECT 'access', 2, format('GRANT %s ON %s TO %s%s', string_agg(privilege, ', '), :target,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
        CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM privileges GROUP BY grantee, is_grantable
UNION ALL
SELECT 'access', 3, format('DROP POLICY %I ON %s', polname, :target)
    FROM pg_policy WHERE polrelid = :replaced
UNION ALL
SELECT 'access', 4, format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', polname, :target,
        CASE WHEN polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END, command, roles,
        ' USING (' || pg_get_expr(polqual, polrelid) || ')',
        ' WITH CHECK (' || pg_get_expr(polwithcheck, polrelid) || ')')
    FROM policies
UNION ALL
SELECT 'access', 5, format('COMMENT ON POLICY %I ON %s IS %L', polname, :target,
        obj_description(oid, 'pg_policy'))
    FROM policies WHERE obj_description(oid, 'pg_policy') IS NOT NULL
UNION ALL
SELECT 'access', 6, format('ALTER TABLE %s %s ROW LEVEL SECURITY, %s ROW LEVEL SECURITY', :target,
        CASE WHEN relrowsecurity THEN 'ENABLE' ELSE 'DISABLE' END,
        CASE WHEN relforcerowsecurity THEN 'FORCE' ELSE 'NO FORCE' END)
    FROM history
UNION ALL
SELECT 'others', 1, format('COMMENT ON TABLE %s IS %L', :target, obj_description(oid, 'pg_class'))
    FROM history WHERE obj_description(oid, 'pg_class') IS NOT NULL
UNION ALL
SELECT 'others', 2, format('ALTER TABLE %s REPLICA IDENTITY %s', :target,
        CASE relreplident WHEN 'f' THEN 'FULL' ELSE 'NOTHING' END)
    FROM history WHERE relreplident IN ('f', 'n')
UNION ALL
SELECT 'others', 3, format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s', :target, attname,
        attstattarget)
    FROM pg_attribute WHERE attrelid = :oid AND attnum > 0 AND attstattarget >= 0
        AND NOT attisdropped
UNION ALL
SELECT 'others', 3, format('ALTER TABLE %s ALTER COLUMN %I SET (%s = %s)', :target, attname,
        option_name, option_value)
    FROM pg_attribute, pg_options_to_table(attoptions) WHERE attrelid = :oid AND attnum > 0
        AND NOT attisdropped AND option_name IN ('n_distinct', 'n_distinct_inherited')
ORDER BY kind, step, statement
""").bindparams(
    bindparam("oid", type_=BigInteger),
    bindparam("replaced", type_=BigInteger),
    bindparam("target", type_=String),
)

_UNVALIDATED = text("""
SELECT CAST(CAST(conrelid AS regclass) AS text), quote_ident(conname) FROM pg_constraint
WHERE contype = 'f' AND confrelid = :oid AND conparentid = 0 AND NOT convalidated
    AND pg_get_constraintdef(oid) LIKE '% NOT VALID'
ORDER BY 1, 2
""").bindparams(bindparam("oid", type_=BigInteger))

_INCOMING = text("""
SELECT CAST(CAST(conrelid AS regclass) AS text) AS name, quote_ident(conname) AS key,
    pg_get_constraintdef(oid) AS definition
FROM pg_constraint
WHERE contype = 'f' AND confrelid = :oid AND conrelid <> :oid AND conparentid = 0
ORDER BY 1, 2
""").bindparams(bindparam("oid", type_=BigInteger))


def read_attributes(
    connection: Connection, oid: int, target: str, *, replaced: int = 0
) -> Attributes:
    """Return the statements that give a table the attributes of another one.

    Args:
        oid: the table that has the attributes.
        target: the name of the one that gets them, for SQL.
        replaced: if that table exists, its oid. It loses its privileges and policies.
    """
    parameters = {"oid": oid, "target": target, "replaced": replaced}
    found: dict[str, list[str]] = defaultdict(list)
    for kind, _, statement in connection.execute(_ATTRIBUTES, parameters):
        found[kind].append(statement)
    return Attributes(**{name: tuple(found[name]) for name in Attributes.__dataclass_fields__})


def read_incoming_keys(connection: Connection, oid: int) -> IncomingKeys:
    """Return the foreign keys of other tables that refer to a table."""
    drops: list[str] = []
    adds: list[str] = []
    validations: list[str] = []
    for name, key, definition in connection.execute(_INCOMING, {"oid": oid}):
        drops.append(f"ALTER TABLE {name} DROP CONSTRAINT {key}")
        add = f"ALTER TABLE {name} ADD CONSTRAINT {key} {definition}"
        if definition.endswith((" NOT VALID", " NOT ENFORCED")):
            adds.append(add)
        else:
            adds.append(f"{add} NOT VALID")
            validations.append(f"ALTER TABLE {name} VALIDATE CONSTRAINT {key}")
    return IncomingKeys(tuple(drops), tuple(adds), tuple(validations))


def validate_keys(bind: Engine | Connection, oid: int) -> None:
    """Validate the foreign keys of other tables that a change of the layout has added again."""
    with exclusive.transaction(bind) as connection:
        found = connection.execute(_UNVALIDATED, {"oid": oid}).all()
    for table, key in found:
        try:
            with exclusive.transaction(bind) as connection, connection.begin_nested():
                run(connection, f"ALTER TABLE {table} VALIDATE CONSTRAINT {key}")
        except IntegrityError as error:
            logger.warning("constraint %s of %s is not valid: %s", key, table, reason(error))
