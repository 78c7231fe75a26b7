"""What is on a stage: list images, sign URLs."""

import json
from collections.abc import Iterator

import pandas as pd
from snowflake.connector import SnowflakeConnection
from snowflake.connector.errors import ProgrammingError

from helpers import config
from helpers.snowflake.connection import query, reading

SIGNED_AT_ONCE = 1000  # paths in one statement, whose text Snowflake limits to 1 MB
DOES_NOT_EXIST = {2003, 2043}


def list_files(
    connection: SnowflakeConnection, table: str, path_column: str, stage: str
) -> list[tuple[str, int, str]]:
    """(relative path, size in bytes, etag) of the table's images that are on the stage, by path.

    Raises LookupError if the table or the stage does not exist.
    """
    rows = []
    for frame in list_images(connection, table, stage, path_column=path_column):
        columns = frame[["RELATIVE_PATH", "SIZE", "ETAG"]]
        rows += columns.itertuples(index=False, name=None)
    return rows


def list_images(
    connection: SnowflakeConnection,
    table: str,
    stage: str,
    *,
    path_column: str = "RELATIVE_PATH",
    not_by_model: str = "",
) -> Iterator[pd.DataFrame]:
    """The table's images that are on the stage, in chunks, by path.

    Columns: FILE_URL, RELATIVE_PATH, SIZE (bytes) and ETAG. not_by_model: leave out what has a
    prediction, and clothing_prediction_log has it from the model of this digest, for this ETAG.
    Raises LookupError if the table or the stage does not exist.
    """
    sql = (
        f"select d.file_url, d.relative_path, d.size, d.etag "
        f"from {config.identifier(table)} as t join directory(@{config.identifier(stage)}) as d "
        f"on d.relative_path = t.{config.identifier(path_column)} "
    )
    values = None
    if not_by_model:
        sql += (
            "where t.pred_timestamp is null or not exists (select 1 "
            "from clothing_prediction_log as l where l.relative_path = d.relative_path "
            "and l.etag = d.etag and l.model_digest = %s) "
        )
        values = (not_by_model,)
    sql += "order by d.relative_path"
    try:
        with reading(connection, sql, values) as cursor:
            yield from cursor.fetch_pandas_batches()
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
        chunk = paths[start : start + SIGNED_AT_ONCE]
        urls += query(connection, sql, (json.dumps(chunk),)).iloc[:, 0].tolist()
    return urls
