"""SQL functions with the same results on every database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    String,
    Uuid,
    cast,
    func,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from jobhistory.sanitize.fingerprint import FINGERPRINT_LENGTH, MASKED_LENGTH, PATTERNS
from jobhistory.schema import PortableJSON, UTCDateTime


class later(GenericFunction[datetime]):  # noqa: N801
    """The later of two times."""

    type = UTCDateTime()
    package = "jobhistory"  # keeps the name out of the app's own `func`
    inherit_cache = True


@compiles(later, "postgresql")
def _later_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    return f"greatest({compiler.process(function.clauses, **options)})"


@compiles(later)
def _later_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    return f"max({compiler.process(function.clauses, **options)})"


class seconds_after(GenericFunction[datetime]):  # noqa: N801
    """The time that is N seconds after another."""

    type = UTCDateTime()
    package = "jobhistory"  # keeps the name out of the app's own `func`
    inherit_cache = True


@compiles(seconds_after, "postgresql")
def _seconds_after_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    moment, seconds = (compiler.process(each, **options) for each in function.clauses)
    # Not added to the time itself, which depends on the time zone if the interval has days. Citus
    # does not let an UPDATE set a column to what depends on a setting.
    local = f"{moment} AT TIME ZONE 'UTC' + make_interval(secs => {seconds})"
    return f"(({local}) AT TIME ZONE 'UTC')"


@compiles(seconds_after)
def _seconds_after_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    moment, seconds = (compiler.process(each, **options) for each in function.clauses)
    # SQLite computes with milliseconds, so the microseconds are added again as text.
    whole = f"strftime('%Y-%m-%d %H:%M:%S', substr({moment}, 1, 19), '+{seconds} seconds')"
    return f"({whole} || substr({moment}, 20))"


class elapsed_ms(GenericFunction[int]):  # noqa: N801
    """The whole milliseconds from a start to an end; 0 if the end is before the start."""

    type = BigInteger()
    package = "jobhistory"  # keeps the name out of the app's own `func`
    inherit_cache = True


@compiles(elapsed_ms, "postgresql")
def _elapsed_ms_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    start, end = (compiler.process(each, **options) for each in function.clauses)
    return f"greatest(0, round(1000 * extract(epoch FROM {end} - {start})))"


@compiles(elapsed_ms)
def _elapsed_ms_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    start, end = (compiler.process(each, **options) for each in function.clauses)
    # SQLite computes with days in floating point, which are exact to the millisecond.
    return f"max(0, CAST(round((julianday({end}) - julianday({start})) * 86400000) AS INTEGER))"


class utc_text(GenericFunction[str]):  # noqa: N801
    """A time as ISO 8601 text, in UTC, with seconds."""

    type = String()
    package = "jobhistory"  # keeps the name out of the app's own `func`
    inherit_cache = True


@compiles(utc_text, "postgresql")
def _utc_text_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    moment = compiler.process(function.clauses, **options)
    return f"""to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""


@compiles(utc_text)
def _utc_text_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    moment = compiler.process(function.clauses, **options)
    return f"strftime('%Y-%m-%dT%H:%M:%SZ', {moment})"


class start_of_bucket(GenericFunction[datetime]):  # noqa: N801
    """The start of the bucket of N seconds that contains a time, counted from the year 1."""

    type = UTCDateTime()
    package = "jobhistory"  # keeps the name out of the app's own `func`
    inherit_cache = True


@compiles(start_of_bucket, "postgresql")
def _start_of_bucket_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    moment, seconds = (compiler.process(each, **options) for each in function.clauses)
    return f"date_bin(make_interval(secs => {seconds}), {moment}, '0001-01-01 00:00:00+00')"


@compiles(start_of_bucket)
def _start_of_bucket_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    moment, seconds = (compiler.process(each, **options) for each in function.clauses)
    # Cut to whole seconds, because SQLite would round. Counted from the year 1 and not from 1970,
    # because integer division truncates towards 0.
    since = f"(strftime('%s', substr({moment}, 1, 19)) + 62135596800)"
    return f"datetime({since} / {seconds} * {seconds} - 62135596800, 'unixepoch')"


class unforeseen(GenericFunction[Any]):  # noqa: N801
    """A value or a row of values that PostgreSQL's planner does not know before execution.

    It then estimates that a third of all rows is below a limit, and that a tenth of the matching
    rows is fetched, whatever the value, the statistics, and the kind of plan.
    """

    package = "jobhistory"  # keeps the name out of the app's own `func`
    inherit_cache = True


@compiles(unforeseen, "postgresql")
def _unforeseen_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    # In a subquery, not every driver tells the server the type of a parameter.
    typed = (cast(each, each.type) for each in function.clauses)
    return f"(SELECT {', '.join(compiler.process(each, **options) for each in typed)})"


@compiles(unforeseen)
def _unforeseen_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    return f"({compiler.process(function.clauses, **options)})"


class is_present(GenericFunction[Any]):  # noqa: N801
    """Whether a column is not NULL. The column contains text or JSON arrays.

    On PostgreSQL, this is a comparison, which is true for every value. It implies IS NOT NULL, so
    the partial indexes can be used, but the planner has no statistics for it.
    """

    package = "jobhistory"  # keeps the name out of the app's own `func`
    inherit_cache = True


@compiles(is_present, "postgresql")
def _is_present_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    (column,) = function.clauses
    least = "''::varchar" if isinstance(column.type, String) else "'[]'::jsonb"
    return f"({compiler.process(column, **options)} >= (SELECT {least}))"


@compiles(is_present)
def _is_present_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    return f"({compiler.process(function.clauses, **options)} IS NOT NULL)"


class is_among(GenericFunction[Any]):  # noqa: N801
    """Whether a value is one of those that a subquery selects."""

    package = "jobhistory"  # keeps the name out of the app's own `func`
    inherit_cache = True


@compiles(is_among, "postgresql")
def _is_among_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    # As an array, whose length the planner assumes to be 10. It never joins then.
    value, selected = (compiler.process(each, **options) for each in function.clauses)
    return f"({value} = ANY (ARRAY{selected}))"


@compiles(is_among)
def _is_among_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    value, selected = (compiler.process(each, **options) for each in function.clauses)
    return f"({value} IN {selected})"


class contains(GenericFunction[bool]):  # noqa: N801
    """Whether a text contains another, which must be in lower case. Ignores the case of A to Z."""

    type = Boolean()
    package = "jobhistory"  # keeps the name out of the app's own `func`
    inherit_cache = True


@compiles(contains, "postgresql")
def _contains_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    text, part = (compiler.process(each, **options) for each in function.clauses)
    return f"""(strpos(lower({text} COLLATE "C"), {part}) > 0)"""


@compiles(contains)
def _contains_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    text, part = (compiler.process(each, **options) for each in function.clauses)
    return f"(instr(lower({text}), {part}) > 0)"


class with_label(GenericFunction[Any]):  # noqa: N801
    """Labels with another value of one of them, or without it if the value is NULL."""

    type = PortableJSON
    package = "jobhistory"  # keeps the name out of the app's own `func`
    inherit_cache = True


@compiles(with_label, "postgresql")
def _with_label_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    labels, *pair = function.clauses
    # Its arguments may be of any type, so not every driver tells the server that of a parameter.
    name, value = (compiler.process(cast(each, String()), **options) for each in pair)
    changed = f"coalesce({compiler.process(labels, **options)}, '{{}}'::jsonb)"
    return f"nullif(jsonb_strip_nulls({changed} || jsonb_build_object({name}, {value})), '{{}}')"


@compiles(with_label)
def _with_label_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    labels, name, value = (compiler.process(each, **options) for each in function.clauses)
    return f"nullif(json_patch(coalesce({labels}, '{{}}'), json_object({name}, {value})), '{{}}')"


class id_of_last(GenericFunction[Any]):  # noqa: N801
    """Aggregate: the id of the row with the latest time, or the greatest id of several."""

    type = Uuid()
    package = "jobhistory"  # keeps the name out of the app's own `func`
    inherit_cache = True


@compiles(id_of_last, "postgresql")
def _id_of_last_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    moment, id_ = (compiler.process(each, **options) for each in function.clauses)
    # As text, because PostgreSQL has neither max(uuid) nor max(record) before version 18.
    text = f"to_char({moment} AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS') || CAST({id_} AS TEXT)"
    return f"""CAST(right(max(({text}) COLLATE "C"), 36) AS UUID)"""


@compiles(id_of_last)
def _id_of_last_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    moment, id_ = (compiler.process(each, **options) for each in function.clauses)
    return f"substr(max({moment} || {id_}), -32)"


FINGERPRINT = "jobhistory_fingerprint"
"""The name of the SQL function that SQLite connections need, as SQLite cannot replace by regex."""


class fingerprint(GenericFunction[str]):  # noqa: N801
    """The fingerprint of a message."""

    type = String()
    package = "jobhistory"  # keeps the name out of the app's own `func`
    inherit_cache = True


@compiles(fingerprint, "postgresql")
def _fingerprint_on_postgresql(function: Any, compiler: Any, **options: Any) -> str:
    message = func.substr(function.clauses.clauses[0], 1, MASKED_LENGTH)
    for pattern, mask in PATTERNS:
        message = func.regexp_replace(message, pattern, mask, "g")
    sql: str = compiler.process(func.substr(message, 1, FINGERPRINT_LENGTH), **options)
    return sql


@compiles(fingerprint)
def _fingerprint_elsewhere(function: Any, compiler: Any, **options: Any) -> str:
    return f"{FINGERPRINT}({compiler.process(function.clauses, **options)})"
