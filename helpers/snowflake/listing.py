"""What is on a stage: list images page by page, sign URLs."""

import json
from collections.abc import Iterator

import pandas as pd
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import ProgrammingError

from helpers import config
from helpers.snowflake.connection import query

SIGNED_AT_ONCE = 1000  # paths in one statement, whose text Snowflake limits to 1 MB
DOES_NOT_EXIST = {2003, 2043}


def list_files(
    connection: SnowflakeConnection, table: str, path_column: str, stage: str
) -> list[tuple[str, int, str]]:
    """(relative path, size in bytes, etag) of the table's images that are on the stage, by path.

    Raises LookupError if the table or the stage does not exist.
    """
    listed = pd.concat(list(list_images(connection, table, stage, path_column=path_column)))
    return list(listed[["RELATIVE_PATH", "SIZE", "ETAG"]].itertuples(index=False, name=None))


def list_images(
    connection: SnowflakeConnection,
    table: str,
    stage: str,
    *,
    path_column: str = "RELATIVE_PATH",
    not_by_model: str = "",
    url_seconds: int = 0,
    page: int = config.PAGE,
) -> Iterator[pd.DataFrame]:
    """The table's images that are on the stage, in pages of at most `page` rows, by path.

    Columns: FILE_URL, RELATIVE_PATH, SIZE (bytes), ETAG, and with url_seconds URL: signed by the
    same statement, good for that time. not_by_model: see `count_images`. A page is asked for when
    it is wanted, from the last path on.
    Raises LookupError if the table or the stage does not exist.
    """
    wanted, values = _wanted(table, stage, path_column, not_by_model)
    signed = f", get_presigned_url(@{stage}, p.relative_path, {int(url_seconds)}) as url "
    sql = (
        f"select p.*{signed if url_seconds else ''} from ("
        f"select d.file_url, d.relative_path, d.size, d.etag {wanted} and d.relative_path > %s "
        f"order by d.relative_path limit {int(page)}) as p order by p.relative_path"
    )
    last = ""
    while True:
        frame = _rows(connection, sql, (*values, last))
        yield frame
        if len(frame) < page:
            return
        last = frame["RELATIVE_PATH"].iloc[-1]


def count_images(
    connection: SnowflakeConnection, table: str, stage: str, not_by_model: str = ""
) -> int:
    """How many images `list_images` lists.

    not_by_model: without those that have a prediction which clothing_prediction_log has from the
    model of this digest, for this ETAG, and without those that clothing_unreadable has given up.
    """
    wanted, values = _wanted(table, stage, "RELATIVE_PATH", not_by_model)
    return int(_rows(connection, f"select count(*) {wanted}", values).iloc[0, 0])


def _wanted(table: str, stage: str, path_column: str, not_by_model: str) -> tuple[str, tuple]:
    """FROM and WHERE of the images that are listed, and the values to bind."""
    sql = (
        f"from {config.identifier(table)} as t join directory(@{config.identifier(stage)}) as d "
        f"on d.relative_path = t.{config.identifier(path_column)} "
    )
    if not not_by_model:
        return f"{sql}where true", ()
    sql += (
        "where (t.pred_timestamp is null or not exists (select 1 "
        "from clothing_prediction_log as l where l.relative_path = d.relative_path "
        "and l.etag = d.etag and l.model_digest = %s)) "
        "and not exists (select 1 from clothing_unreadable as u "
        "where u.relative_path = d.relative_path and u.etag = d.etag)"
    )
    return sql, (not_by_model,)


def _rows(connection: SnowflakeConnection, sql: str, values: tuple) -> pd.DataFrame:
    """As `query`; raises LookupError for a table or a stage that does not exist."""
    try:
        return query(connection, sql, values)
    except ProgrammingError as error:
        if error.errno in DOES_NOT_EXIST:
            raise LookupError(f"{error.msg} Run notebook 01_set_up_snowflake first.") from None
        raise


def sign_urls(
    connection: SnowflakeConnection, stage: str, paths: list[str], seconds: int = 3600
) -> list[str]:
    """A signed URL for each path on the stage, in order, good for `seconds` (at most 604800)."""
    sql = (
        f"select get_presigned_url(@{config.identifier(stage)}, f.value::varchar, {int(seconds)}) "
        "from table(flatten(input => parse_json(%s))) as f order by f.index"
    )
    urls = []
    for start in range(0, len(paths), SIGNED_AT_ONCE):
        # letters as they are: escaped, a thousand paths in Japanese are over that megabyte
        values = (json.dumps(paths[start : start + SIGNED_AT_ONCE], ensure_ascii=False),)
        urls += query(connection, sql, values).iloc[:, 0].tolist()
    return urls
