-- Purpose: write the staged predictions and failures of one run, exactly once.
-- Needs: 03_create_tables.sql, and two temporary tables: $staged with one row for each predicted image,
--     $staged_failures with what could not be predicted.
-- Leaves behind: an OPEN transaction. Compare the numbers of its statements, then COMMIT or ROLLBACK.
-- The statements may run again at any time: what is already written is found and left alone.

set target = 'CLOTHING_TEST';

set staged = 'STAGED_PREDICTIONS';

set staged_failures = 'STAGED_FAILURES';

set run = 'the run';

set arch = 'the architecture';

begin;

-- Images whose bytes were replaced since they were predicted are listed, and not written.
-- name: replaced
select s.relative_path
from identifier($staged) as s
join directory(@clothing_dataset) as d
    on d.relative_path = s.relative_path
where d.etag <> s.etag
order by s.relative_path;

delete from identifier($staged)
where relative_path in (
    select s.relative_path
    from identifier($staged) as s
    join directory(@clothing_dataset) as d
        on d.relative_path = s.relative_path
    where d.etag <> s.etag
);

-- The newest prediction of this version of the image wins, whatever the order in which runs are written back. Its path
-- is the key: its address holds the names of account and stage, which may change.
-- name: merged
merge into identifier($target) as t
using identifier($staged) as s
    on t.relative_path = s.relative_path
    and t.size = s.size
    and coalesce(t.etag, s.etag) = s.etag
when matched and (t.pred_timestamp is null or t.pred_timestamp < s.predicted_at) then update set
    type = s.type,
    confidence = s.confidence,
    pred_timestamp = s.predicted_at;

-- What the target now holds is logged, and nothing else: a prediction without an image is not.
-- name: logged
insert into clothing_prediction_log (
    run,
    relative_path,
    etag,
    size,
    type,
    confidence,
    model_digest,
    arch,
    predicted_at
)
select
    $run,
    s.relative_path,
    s.etag,
    s.size,
    s.type,
    s.confidence,
    s.model_digest,
    $arch,
    s.predicted_at
from identifier($staged) as s
join identifier($target) as t
    on t.relative_path = s.relative_path
    and t.size = s.size
    and coalesce(t.etag, s.etag) = s.etag
    and t.pred_timestamp >= s.predicted_at
    and (t.pred_timestamp > s.predicted_at or (t.type = s.type and t.confidence = s.confidence))
left join clothing_prediction_log as l
    on l.run = $run
    and l.relative_path = s.relative_path
    and l.etag = s.etag
    and l.model_digest = s.model_digest
    and l.predicted_at = s.predicted_at
where l.run is null;

insert into clothing_failure (run, relative_path, reason, attempts, seen_at, etag)
select
    $run,
    s.relative_path,
    s.reason,
    s.attempts,
    current_timestamp(),
    d.etag
from identifier($staged_failures) as s
left join directory(@clothing_dataset) as d
    on d.relative_path = s.relative_path
left join clothing_failure as f
    on f.run = $run
    and f.relative_path = s.relative_path
where f.run is null;
