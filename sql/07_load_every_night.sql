-- Purpose: let Snowflake itself keep clothing_test in line with its stage, every night. Optional.
-- Needs: 03_create_tables.sql, an account, a role that may create and execute tasks, a warehouse of your own in place
--     of compute_wh. Not run on the local stand-in, which has no streams and no tasks.
-- Leaves behind: stream clothing_new_image and task clothing_load_images, which wakes the warehouse when there is
--     something new. Before 08_drop_all.sql, drop the task, then the stream: a task left behind costs money.
-- An internal stage is refreshed by the task. An external one can refresh itself when its bucket sends notifications:
--     create it with directory = (enable = true auto_refresh = true).

create stream if not exists clothing_new_image on stage clothing_dataset;

create task if not exists clothing_load_images
    warehouse = compute_wh
    schedule = 'using cron 0 2 * * * UTC'
as
begin
    alter stage clothing_dataset refresh;
    merge into clothing_test as t
    using (
        select
            file_url,
            relative_path,
            size,
            last_modified
        from clothing_new_image
        where metadata$action = 'INSERT'
    ) as d
        on t.relative_path = d.relative_path
    when matched then update set
        file_url = d.file_url,
        size = d.size,
        last_modified = d.last_modified,
        pred_timestamp = null,
        type = null,
        confidence = null
    when not matched then insert (file_url, relative_path, size, last_modified)
        values (d.file_url, d.relative_path, d.size, d.last_modified);
end;

alter task clothing_load_images resume;
