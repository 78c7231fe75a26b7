-- Purpose: the tables of images, of predictions, and of images that could not be predicted.
-- Needs: 01_create_database.sql.
-- Leaves behind: tables clothing_test, clothing_train, clothing_prediction_log, clothing_failure; view
--     clothing_unreadable, a row for each image version that could not be read in three runs.

create table if not exists clothing_test (
    file_url text,
    relative_path text,
    size number,
    last_modified timestamp_tz,
    pred_timestamp timestamp_tz,
    type text,
    confidence float,
    etag text
);

create table if not exists clothing_train (
    file_url text,
    relative_path text,
    size number,
    last_modified timestamp_tz
);

create table if not exists clothing_prediction_log (
    run text,
    relative_path text,
    etag text,
    size number,
    type text,
    confidence float,
    model_digest text,
    arch text,
    predicted_at timestamp_tz
);

create table if not exists clothing_failure (
    run text,
    relative_path text,
    reason text,
    attempts number,
    seen_at timestamp_tz,
    etag text
);

-- For tables that were made before they had this column.
alter table clothing_test add column if not exists etag text;

alter table clothing_failure add column if not exists etag text;

-- These are left to people: the nightly job tries them again once they change. Where the network failed, no image
-- is to blame.
create view if not exists clothing_unreadable as
select
    relative_path,
    etag,
    count(distinct run) as runs,
    max(reason) as reason,
    min(seen_at) as first_seen_at,
    max(seen_at) as last_seen_at
from clothing_failure
where etag is not null
    and reason not like 'download failed%'
    and reason not like 'the signed URL%'
group by relative_path, etag
having count(distinct run) >= 3;
