-- Purpose: bring the tables in line with the stages.
-- Needs: 02_create_stages.sql, 03_create_tables.sql, files on the stages.
-- Leaves behind: a row for each image. A changed image gets its new size and time and loses its prediction,
--     which was of the old one; rows of images that have left the stage stay, and are listed at the end.

alter stage clothing_dataset refresh;

alter stage clothing_dataset_train refresh;

-- name: loaded_test
merge into clothing_test as t
using (
    select
        file_url,
        relative_path,
        size,
        last_modified
    from directory(@clothing_dataset)
) as d
    on t.relative_path = d.relative_path
when matched and (t.size <> d.size or t.last_modified <> d.last_modified) then update set
    file_url = d.file_url,
    size = d.size,
    last_modified = d.last_modified,
    pred_timestamp = null,
    type = null,
    confidence = null
when not matched then insert (file_url, relative_path, size, last_modified)
    values (d.file_url, d.relative_path, d.size, d.last_modified);

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
when matched and (t.size <> d.size or t.last_modified <> d.last_modified) then update set
    file_url = d.file_url,
    size = d.size,
    last_modified = d.last_modified
when not matched then insert (file_url, relative_path, size, last_modified)
    values (d.file_url, d.relative_path, d.size, d.last_modified);

-- name: vanished
select
    'clothing_test' as table_name,
    relative_path
from clothing_test
where relative_path not in (select relative_path from directory(@clothing_dataset))
union all
select
    'clothing_train' as table_name,
    relative_path
from clothing_train
where relative_path not in (select relative_path from directory(@clothing_dataset_train));
