-- Purpose: estimate what a run costs, from the user's own statements, from sizes, and from prices.
-- Needs: 02_create_stages.sql, 03_create_tables.sql, and no other privileges. 10_metered_cost.sql has what is billed.
-- Leaves behind: nothing but temporary tables. Null is what nobody has told, and so is every sum that it belongs to.

set database_name = 'CLOTHING';

set run = '';

-- What the run's folder tells; -1 is not known.
set predicted = 0;

set worker_hours = -1;

-- Prices in one currency, and when the warehouse falls asleep; a worker's hour of -1 is not known.
set credit = 2.0;

set x_small_credits = 1.0;

set terabyte_month = 40.0;

set worker_hour = -1;

set auto_suspend_s = 60;

use database identifier($database_name);

use schema public;

-- The newest 10,000 statements of seven days: no more is told. A statement that still runs has no end, or one
-- before its start. Each size of a warehouse is twice the one before; what needs no warehouse has no size.
create or replace temporary table clothing_statement as
select
    query_id,
    coalesce(try_parse_json(query_tag):tutorial::string, '') as tutorial,
    coalesce(try_parse_json(query_tag):run::string, '') as run,
    coalesce(try_parse_json(query_tag):notebook::string, '') as notebook,
    coalesce(try_parse_json(query_tag):step::string, '') as step,
    iff(warehouse_size is null, '', warehouse_name) as warehouse,
    case coalesce(warehouse_size, '')
        when '' then 0
        when 'X-Small' then 1
        when 'Small' then 2
        when 'Medium' then 4
        when 'Large' then 8
        when 'X-Large' then 16
        when '2X-Large' then 32
        when '3X-Large' then 64
        when '4X-Large' then 128
    end::float as x_smalls,
    date_part(epoch_millisecond, start_time)::float / 1000 as began,
    date_part(epoch_millisecond, iff(end_time >= start_time, end_time, current_timestamp()))::float / 1000 as ended
from table(information_schema.query_history_by_user(result_limit => 10000));

-- A warehouse is awake from a start until some seconds after the last end, and each start is billed for a minute at
-- least. The seconds go to the statement that added them, so that statements add up to the bill. Others' statements
-- are not told: it is as if nobody else kept a warehouse awake.
create or replace temporary table clothing_usage as
with spans as (
    select
        *,
        max(ended + $auto_suspend_s) over (
            partition by warehouse
            order by began, query_id
            rows between unbounded preceding and 1 preceding
        ) as asleep_at
    from clothing_statement
),

starts as (
    select
        *,
        sum(iff(asleep_at is null or began > asleep_at, 1, 0)) over (
            partition by warehouse
            order by began, query_id
            rows between unbounded preceding and current row
        ) as start_number
    from spans
),

stretches as (
    select
        *,
        greatest(
            60,
            max(ended + $auto_suspend_s) over (
                partition by warehouse, start_number
                order by began, query_id
                rows between unbounded preceding and current row
            ) - min(began) over (partition by warehouse, start_number)
        ) as billed
    from starts
),

parts as (
    select
        *,
        iff(
            warehouse = '',
            0,
            billed - lag(billed, 1, 0) over (
                partition by warehouse, start_number
                order by began, query_id
            )
        ) as seconds
    from stretches
)

select
    run,
    notebook,
    step,
    min(began) as began,
    count(*) as statements,
    sum(seconds) as seconds,
    iff(count(x_smalls) = count(*), sum(seconds * x_smalls) / 3600, null) as x_small_hours
from parts
where tutorial = 'snowflake-images'
group by run, notebook, step;

-- name: usage
select
    notebook as "notebook",
    step as "step",
    statements as "statements",
    seconds::float as "seconds",
    x_small_hours::float as "x_small_hours"
from clothing_usage
where run = $run
order by began, step;

-- Gigabytes on the stages as of their last refresh, in the tables, and what is billed for the tables once they are
-- dropped: they are kept for time travel, and then seven days for disasters. No bytes where there are rows are bytes that
-- are not told.
-- name: bill
with spent as (
    select iff(count(*) > 0 and count(x_small_hours) = count(*), sum(x_small_hours), null) as hours
    from clothing_usage
    where run = $run
),

staged as (
    select size from directory(@clothing_dataset)
    union all
    select size from directory(@clothing_dataset_train)
),

stored as (
    select
        count(*) as files,
        coalesce(sum(size), 0) / power(1024, 3) as gigabytes
    from staged
),

tables_here as (
    select
        iff(bytes = 0 and row_count > 0, null, bytes / power(1024, 3)) as gigabytes,
        (retention_time + iff(is_transient = 'YES', 0, 7)) / 30 as months
    from information_schema.tables
    where table_schema = 'PUBLIC'
        and table_name in ('CLOTHING_TEST', 'CLOTHING_TRAIN', 'CLOTHING_PREDICTION_LOG', 'CLOTHING_FAILURE')
),

kept as (
    select
        iff(count(gigabytes) = count(*), coalesce(sum(gigabytes), 0), null) as gigabytes,
        iff(count(gigabytes) = count(*), coalesce(sum(gigabytes * months), 0), null) as dropped
    from tables_here
),

lines as (
    select 1 as place, 'warehouses' as what, hours as amount, 'hours of an X-Small' as unit,
        $credit * $x_small_credits as price, $predicted as images, true as is_once
    from spent
    union all
    select 2, 'workers', nullif($worker_hours, -1), 'hours', nullif($worker_hour, -1), $predicted, true
    union all
    select 3, 'tables once dropped', dropped, 'GB-months', $terabyte_month / 1024, $predicted, true from kept
    union all
    select 5, 'stages, a month', gigabytes, 'GB', $terabyte_month / 1024, files, false from stored
    union all
    select 6, 'tables, a month', gigabytes, 'GB', $terabyte_month / 1024, $predicted, false from kept
),

priced as (
    select place, what, amount, unit, price, images, amount * price as money from lines
    union all
    select 4, 'the run, without months', null, '', null, $predicted,
        iff(count(amount * price) = count(*), sum(amount * price), null)
    from lines
    where is_once
)

select
    what as "what",
    amount::float as "amount",
    unit as "unit",
    price::float as "price",
    money::float as "money",
    (1000000 * money / nullif(images, 0))::float as "a million images"
from priced
order by place;
