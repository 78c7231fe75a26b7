-- Purpose: the tables of images, of predictions, and of images that could not be predicted.
-- Needs: 01_create_database.sql.
-- Leaves behind: tables clothing_test, clothing_train, clothing_prediction_log, clothing_failure.

create table if not exists clothing_test (
    file_url text,
    relative_path text,
    size number,
    last_modified timestamp_tz,
    pred_timestamp timestamp_tz,
    type text,
    confidence float
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
    seen_at timestamp_tz
);
