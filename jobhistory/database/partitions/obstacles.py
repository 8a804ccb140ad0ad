"""What keeps the history table from changing its layout."""

from __future__ import annotations

from sqlalchemy import BigInteger, Connection, bindparam, text

from jobhistory.database.partitions.cuts import CUT_CONSTRAINT
from jobhistory.errors import LayoutNotChanged

# Other objects refer to a table by its number, not by its name, so they would follow the rows.
_OBSTACLES = text("""
WITH history AS (SELECT * FROM pg_class WHERE oid = :oid),
dependents AS (
    SELECT classid, objid FROM pg_depend, history
    WHERE deptype IN ('n', 'a') AND (
        refclassid = CAST('pg_class' AS regclass) AND refobjid = history.oid
        OR refclassid = CAST('pg_type' AS regclass) AND refobjid = history.reltype
    )
    EXCEPT
    SELECT CAST('pg_policy' AS regclass), pg_policy.oid FROM pg_policy WHERE polrelid = :oid
)
SELECT DISTINCT pg_describe_object(classid, objid, 0) || ' depends on it; drop that first'
    FROM dependents
    WHERE classid IN (
            CAST('pg_rewrite' AS regclass), CAST('pg_proc' AS regclass),
            CAST('pg_policy' AS regclass), CAST('pg_publication_rel' AS regclass)
        )
        OR classid = CAST('pg_class' AS regclass) AND EXISTS (
            SELECT FROM pg_class WHERE pg_class.oid = objid AND relkind NOT IN ('i', 'I', 't')
                AND pg_class.oid NOT IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = :oid)
        )
UNION ALL
SELECT 'publication ' || quote_ident(pubname) || CASE
        WHEN relkind = 'p' THEN ' would publish rows that move as new ones; drop it first'
        ELSE ' would publish its partitions under their own names; run ALTER PUBLICATION '
            || quote_ident(pubname) || ' SET (publish_via_partition_root = true) first'
    END
    FROM history JOIN pg_namespace ON pg_namespace.oid = relnamespace
    JOIN pg_publication_tables ON schemaname = nspname AND tablename = relname
    JOIN pg_publication USING (pubname)
    WHERE (relkind = 'p' OR NOT pubviaroot) AND NOT EXISTS (
        SELECT FROM pg_publication_rel WHERE prpubid = pg_publication.oid AND prrelid = :oid
    )
UNION ALL
SELECT 'it is neither an ordinary table nor partitioned'
    FROM history WHERE relkind NOT IN ('r', 'p')
UNION ALL
SELECT 'it is not a permanent table' FROM history WHERE relpersistence <> 'p'
UNION ALL
SELECT 'it is owned by ' || quote_ident(pg_get_userbyid(relowner)) || '; use that role'
    FROM history WHERE NOT pg_has_role(relowner, 'USAGE')
UNION ALL
SELECT 'it inherits from ' || CAST(CAST(inhparent AS regclass) AS text)
    FROM pg_inherits WHERE inhrelid = :oid
UNION ALL
SELECT CAST(CAST(inhrelid AS regclass) AS text) || ' inherits from it'
    FROM pg_inherits JOIN history ON inhparent = history.oid WHERE relkind = 'r'
UNION ALL
SELECT 'column ' || quote_ident(attname) || ' is an identity column'
    FROM pg_attribute WHERE attrelid = :oid AND attidentity <> ''
UNION ALL
SELECT 'index ' || CAST(CAST(indexrelid AS regclass) AS text)
        || ' is unique without the column id, by which partitions are chosen'
    FROM pg_index WHERE indrelid = :oid AND indisunique AND NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = :oid AND attname = 'id'
            AND attnum = ANY(
                (CAST(string_to_array(CAST(indkey AS text), ' ') AS smallint[]))[1:indnkeyatts]
            )
    )
UNION ALL
SELECT 'constraint ' || quote_ident(conname) || CASE
        WHEN contype = 'x' THEN ' excludes rows, which partitions cannot check'
        WHEN contype = 'c' AND connoinherit THEN ' is NO INHERIT'
        WHEN contype = 'f' AND confrelid = :oid THEN ' refers to the table itself'
        ELSE ' is not valid; validate it first'
    END
    FROM pg_constraint WHERE conrelid = :oid AND conparentid = 0 AND (
        contype = 'x' OR contype = 'c' AND connoinherit
        OR contype = 'f' AND confrelid = :oid
        OR contype IN ('c', 'f') AND NOT convalidated AND conname <> :leftover
    )
UNION ALL
SELECT 'constraint ' || quote_ident(conname) || ' of table '
        || CAST(CAST(conrelid AS regclass) AS text) || CASE
        WHEN relkind = 'p' THEN ' belongs to a partitioned table; drop it first'
        ELSE ' is owned by ' || quote_ident(pg_get_userbyid(relowner))
            || '; use a role that owns both tables'
    END
    FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
    WHERE contype = 'f' AND confrelid = :oid AND conrelid <> :oid AND conparentid = 0
        AND (relkind = 'p' OR NOT pg_has_role(relowner, 'USAGE'))
UNION ALL
SELECT 'trigger ' || quote_ident(tgname) || ' is FOR EACH ROW and has a transition table'
    FROM pg_trigger WHERE tgrelid = :oid AND NOT tgisinternal AND tgtype & 1 = 1
        AND (tgoldtable IS NOT NULL OR tgnewtable IS NOT NULL)
UNION ALL
SELECT 'its replica identity is an index; use DEFAULT or FULL' FROM history WHERE relreplident = 'i'
""").bindparams(bindparam("oid", type_=BigInteger))


def refuse_obstacles(connection: Connection, oid: int) -> None:
    """Check that nothing refers to the history table that would not survive its replacement.

    Raises:
        LayoutNotChanged: if something does.
    """
    found = connection.execute(_OBSTACLES, {"oid": oid, "leftover": CUT_CONSTRAINT})
    reasons = sorted(found.scalars())
    if reasons:
        raise LayoutNotChanged("; ".join(reasons))
