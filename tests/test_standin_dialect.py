"""SQL that only other dialects have is refused, as an account refuses it; Snowflake's is read."""

import duckdb
import pytest
from snowflake.connector import connect
from snowflake.connector.errors import DatabaseError, ProgrammingError
from sqlglot import parse_one
from sqlglot.errors import ParseError

import standin
from standin import allowed, dialect
from standin.errors import SYNTAX_ERROR, UNKNOWN_FUNCTION, UNSUPPORTED, SqlError

# DuckDB's functions that Snowflake has too, by Snowflake's documentation
SHARED = dialect.KNOWN | allowed.FUNCTIONS
FOREIGN_FORMS = """
from t select a
from t
create table u as from t
select * from (from t)
with x as (from t) select * from x
select distinct on (a) a, b from t
select * from t semi join u on true
select * from t anti join u on true
select * from t asof join u on t.a >= u.a
select count(*) filter (where a > 1) from t
select a from t except all select a from u
select a from t intersect all select a from u
select a from t using sample 10
select a from t limit 10 percent
select a from t limit 10%
insert or replace into t values (1)
insert into t by name select 1 as a
insert into t values (1) on conflict do nothing
insert into t values (1) returning a
update t set a = 1 returning a
delete from t returning a
values (1)
select array_sort(a, x -> x) from t
select a -> 'b' from t
select a ->> 'b' from t
select {'a': 1}.a
select (1, 2)
select [x for x in [1, 2]]
select 2 ** 3
select 'a' ^@ 'b'
select 'a' ~~~ 'b'
select 'a' ~~ 'b'
select 'a' ~ 'b'
select 'a' glob 'b'
select 'a' similar to 'b'
select 1 & 2
select 1 | 2
select 1 << 2
select 1 >> 2
select 7 div 2
select 1 == 1
select a && b from t
select 1::hugeint
select 1::uinteger
select 1::int128
select null::struct(a int)
select null::uuid
select null::json
select null::blob
select [1]::int[]
create table t (a hugeint)
create table t (a int[])
create table t (a struct(x int))
attach 'x' as y
export database 'x'
"""
OTHER_STATEMENTS = """
pivot t on a using sum(b)
unpivot t on a into name x value y
load httpfs
vacuum
call pragma_version()
set variable x = 1
describe select 1
summarize t
install httpfs
checkpoint
create macro f(x) as x
create type x as enum ('a')
explain analyze select 1
"""
SNOWFLAKE = """
select a from t qualify row_number() over (partition by b order by a) = 1
select * exclude (a) from t
select * exclude a from t
select * replace (a + 1 as a) rename (b as c) from t
select * ilike 'a%' from t
select filter([1, 2], x -> x > 1), transform([1], x int -> x + 1), reduce([1], 0, (a, x) -> a)
select {'a': 1}, {'a': 1}:a, {'a': 1}['a'], object_construct('a', 1), [1, 2][0]
select * from t pivot (sum(b) for a in ('x', 'y'))
select * from t unpivot (b for a in (x, y))
select * from t asof join u match_condition (t.a >= u.a)
select a from t union all by name select a from u
with recursive x as (select 1 as a union all select a + 1 from x where a < 3) select * from x
select * from table(flatten(input => parse_json('[1]'))), lateral flatten(input => a) f
select * from (values (1), (2)) as v(a)
select count(distinct a), count_if(a > 1), listagg(a, ',') within group (order by a) from t
select uuid_string(), hex_encode('a'), bitand(1, 2), bitshiftleft(1, 2), iff(true, 1, 2)
select 'a' ilike any ('b', 'c'), 'a' rlike 'b', 'a' || 'b', 5 % 2, a:b.c::string from t
select 1::number(38, 0), 1::double precision, 'a'::char varying(3), null::variant, null::object
select 1::byteint, 1::float8, null::timestamp_tz(9), null::array, null::vector(float, 3)
select a from t sample (10), u tablesample (10 rows)
select sum(a) over (order by b rows between unbounded preceding and current row) from t
select sum(a) over (order by b range between unbounded preceding and current row) from t
select a from t limit 10 offset 2
select interval '1 day', date '2020-01-01', current_timestamp, current_date(), extract(year from a)
select position('a' in 'b'), substring('abc', 1, 2), trim('a'), try_cast('1' as int)
update t set a = u.a from u where t.b = u.b
delete from t using u where t.a = u.a
create table t (list int, uuid text, json variant, struct int, blob binary, bit boolean, glob text)
select a from t minus select a from u
"""


@pytest.fixture(scope="module")
def cursor(running_standin):
    with connect(**standin.connection_parameters(running_standin.root)) as connection:
        cursor = connection.cursor()
        cursor.execute("create or replace database DIALECT")
        cursor.execute("create table t (a int, b int)")
        cursor.execute("create table u (a int, b int)")
        yield cursor


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def code_of(sql: str) -> int:
    """The number of the error in which reading a statement ends; 0 if it is read."""
    try:
        allowed.check(parse_one(sql, read=dialect.Strict))
    except ParseError:
        return SYNTAX_ERROR
    except SqlError as error:
        return error.errno
    return 0


def foreign_functions() -> list[str]:
    rows = duckdb.sql("select distinct upper(function_name) from duckdb_functions()").fetchall()
    return sorted(name for (name,) in rows if name.isidentifier() and name not in SHARED)


def test_the_list_is_of_names_that_the_parser_knows():
    parser = dialect.Snowflake.Parser
    assert not dialect.KNOWN - parser.FUNCTIONS.keys() - parser.FUNCTION_PARSERS.keys()
    assert len(foreign_functions()) > 400


@pytest.mark.parametrize("arguments", ["", "'a'", "1, 2", "[1, 2], x -> x"])
def test_a_function_that_snowflake_lacks_is_unknown(arguments):
    codes = {name: code_of(f"select {name}({arguments})") for name in foreign_functions()}
    read = [name for name, code in codes.items() if code == 0]
    other = {name: code for name, code in codes.items() if code not in (0, UNKNOWN_FUNCTION)}
    assert not read
    assert set(other.values()) <= {SYNTAX_ERROR} and (len(other) < 30 or "->" in arguments), other


@pytest.mark.parametrize("sql", lines(FOREIGN_FORMS))
def test_a_form_of_other_dialects_is_an_error_of_syntax(sql, cursor):
    assert code_of(sql) == SYNTAX_ERROR
    with pytest.raises(ProgrammingError) as refused:
        cursor.execute(sql)
    assert refused.value.errno == SYNTAX_ERROR


@pytest.mark.parametrize("sql", lines(SNOWFLAKE))
def test_what_snowflake_knows_is_read(sql):
    assert code_of(sql) == 0


@pytest.mark.parametrize("sql", lines(OTHER_STATEMENTS))
def test_a_statement_of_duckdb_is_refused(cursor, sql):
    with pytest.raises(DatabaseError, match=r"syntax error|Unsupported feature") as refused:
        cursor.execute(sql)
    assert refused.value.errno in (SYNTAX_ERROR, UNSUPPORTED)
