-- Purpose: let Snowflake itself keep clothing_test in line with its stage, as soon as images arrive. Optional: `make
--     batch` loads as well, and each changes only rows whose image is another version.
-- Needs: 03_create_tables.sql; on an account two grants, which are among the optional lines of
--     00_role_and_warehouse.sql.
-- Leaves behind: stream clothing_new_image and task clothing_load_images, which runs when the stream has something
--     new. 08_drop_all.sql drops both: a task left behind may cost money.
-- A stream sees what the directory table sees, and the table what its last refresh saw: refresh it yourself, as
--     04_load_tables.sql does, or let it refresh itself, which is billed by the number of files: create the stage
--     with directory = (enable = true auto_refresh = true). Internal stages take it on AWS, external ones where the
--     bucket sends notifications (Snowflake's page data-load-dirtables-auto).

create stream if not exists clothing_new_image on stage clothing_dataset;

create task if not exists clothing_load_images
    warehouse = clothing_wh
    when system$stream_has_data('CLOTHING_NEW_IMAGE')
as
merge into clothing_test as t
using (
    select
        file_url,
        relative_path,
        size,
        last_modified,
        etag
    from clothing_new_image
    where metadata$action = 'INSERT'
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

alter task clothing_load_images resume;
