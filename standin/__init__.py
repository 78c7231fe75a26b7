"""A local stand-in for Snowflake: the real connector talks to it over HTTP.

It is DuckDB behind the translation of fakesnow, with what the tutorial needs and fakesnow lacks:
stages, directory tables, signed URLs, PUT and GET, and transactions that end as Snowflake's do.
fakesnow's parts are reached into, so fakesnow, duckdb and sqlglot are pinned exactly.

It is more forgiving than Snowflake. It proves nothing of grants, warehouses, cost, or the types
that an account insists on; the README and the published pages say what, under "What the stand-in
does not prove". It imports nothing of the project. The files in the order of reading:

    lifecycle          starts, finds and stops the server, from any process; all a client needs
    serve              the server's process: one folder, one lock, one port
    build              puts its parts together
    compat             what fakesnow needs to run here, without a connector and with files
    app                the HTTP endpoints: log-in, query, heartbeat, large results
    responses          the bodies of their answers
    sessions           one connection: tells statements apart, and runs them in order
    dialect, allowed   what Snowflake does not know is not read, or refused
    changes            the statements that change rows
    pipelines, streams streams on stages, and tasks
    transactions       one writer at a time, and a failed statement undoes only itself
    rewrite            Snowflake's SQL made fit for fakesnow, on the parsed tree
    constraints        which of them a database has
    engine             runs one statement on fakesnow and DuckDB; what fails is an SQL error
    results            rows in the connector's encoding
    databases          CREATE, DROP and USE of databases: one DuckDB file each
    definitions        all other DDL
    settings           USE, SET and ALTER SESSION
    stage_statements   the statements about stages
    stages, keys       their files, and what these are called on the disk
    directory          directory tables: what the last refresh saw
    transfers          the answers to PUT and GET
    files              the files themselves, over HTTP
    signing            signed URLs
    copy_into, infer   Parquet files into a table, and their columns
    text, names        statements and names before they are parsed
    errors, whole      the one error; a file written whole or not at all

`python -m standin start|stop|status|reset` is the same from a terminal.
"""

from standin.lifecycle import (
    Server,
    connection_parameters,
    ensure_running,
    in_use,
    reset,
    status,
    stop,
)
from standin.serve import StartError

__all__ = [
    "Server",
    "StartError",
    "connection_parameters",
    "ensure_running",
    "in_use",
    "reset",
    "status",
    "stop",
]
