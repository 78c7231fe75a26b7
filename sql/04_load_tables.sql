-- Purpose: bring the tables in line with the stages.
-- Needs: 02_create_stages.sql, 03_create_tables.sql, files on the stages.
-- Leaves behind: a row for each image. An image whose content has changed, which its ETAG tells, loses its prediction,
--     which was of the old one. A file that was only touched, or has another address since the account or the stage
--     was renamed, keeps it. Rows of images that have left the stage stay, and some are listed at the end.

alter stage clothing_dataset refresh;

alter stage clothing_dataset_train refresh;

-- A row from before there was an ETAG in this table has only the time to go by.
-- name: loaded_test
merge into clothing_test as t
using (
    select
        file_url,
        relative_path,
        size,
        last_modified,
        etag
    from directory(@clothing_dataset)
) as d
    on t.relative_path = d.relative_path
when matched and (
    t.size <> d.size
    or t.etag <> d.etag
    or (t.etag is null and t.last_modified <> d.last_modified)
) then update set
    file_url = d.file_url,
    size = d.size,
    last_modified = d.last_modified,
    etag = d.etag,
    pred_timestamp = null,
    type = null,
    confidence = null
when not matched then insert (file_url, relative_path, size, last_modified, etag)
    values (d.file_url, d.relative_path, d.size, d.last_modified, d.etag);

-- What does not touch the content does not touch the prediction.
merge into clothing_test as t
using (
    select
        file_url,
        relative_path,
        last_modified,
        etag
    from directory(@clothing_dataset)
) as d
    on t.relative_path = d.relative_path
when matched and (
    t.file_url <> d.file_url
    or t.last_modified <> d.last_modified
    or (t.etag is null and d.etag is not null)
) then update set
    file_url = d.file_url,
    last_modified = d.last_modified,
    etag = d.etag;

-- name: loaded_train
merge into clothing_train as t
using (
    select
        file_url,
        relative_path,
        size,
        last_modified
    from directory(@clothing_dataset_train)
) as d
    on t.relative_path = d.relative_path
when matched and (
    t.file_url <> d.file_url
    or t.size <> d.size
    or t.last_modified <> d.last_modified
) then update set
    file_url = d.file_url,
    size = d.size,
    last_modified = d.last_modified
when not matched then insert (file_url, relative_path, size, last_modified)
    values (d.file_url, d.relative_path, d.size, d.last_modified);

-- The first of them, and how many there are in each table.
-- name: vanished
with vanished as (
    select
        'clothing_test' as table_name,
        t.relative_path
    from clothing_test as t
    left join directory(@clothing_dataset) as d
        on d.relative_path = t.relative_path
    where d.relative_path is null
    union all
    select
        'clothing_train' as table_name,
        t.relative_path
    from clothing_train as t
    left join directory(@clothing_dataset_train) as d
        on d.relative_path = t.relative_path
    where d.relative_path is null
)

select
    table_name,
    relative_path,
    count(*) over (partition by table_name) as vanished
from vanished
qualify row_number() over (
    partition by table_name
    order by relative_path
) <= 100
order by table_name, relative_path;
