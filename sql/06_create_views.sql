-- Purpose: read the predictions with their lineage.
-- Needs: 03_create_tables.sql.
-- Leaves behind: view clothing_prediction, a row for each image that has a prediction, with the run and the model
--     that made it; view clothing_prediction_change, a row for each image version and each two models of which
--     the later one says something else. Who could read them before still can.

create or replace view clothing_prediction
    copy grants
as
select
    t.relative_path,
    t.file_url,
    t.type,
    t.confidence,
    t.pred_timestamp,
    l.run,
    l.etag,
    l.model_digest,
    l.arch
from clothing_test as t
join clothing_prediction_log as l
    on l.relative_path = t.relative_path
    and l.size = t.size
    and l.predicted_at = t.pred_timestamp
qualify row_number() over (
    partition by t.relative_path
    order by l.run
) = 1;

create or replace view clothing_prediction_change
    copy grants
as
with newest as (
    select
        relative_path,
        etag,
        model_digest,
        type,
        confidence,
        predicted_at
    from clothing_prediction_log
    qualify row_number() over (
        partition by relative_path, etag, model_digest
        order by predicted_at desc, run
    ) = 1
)

select
    a.relative_path,
    a.etag,
    a.model_digest as old_model_digest,
    b.model_digest as new_model_digest,
    a.type as old_type,
    b.type as new_type,
    a.confidence as old_confidence,
    b.confidence as new_confidence,
    b.predicted_at as changed_at
from newest as a
join newest as b
    on b.relative_path = a.relative_path
    and b.etag = a.etag
    and b.model_digest <> a.model_digest
    and b.predicted_at > a.predicted_at
where b.type <> a.type;
