-- Purpose: what Snowflake has metered for the tutorial, by the query tags of its statements: for an administrator.
-- Needs: ACCOUNTADMIN, or a role with imported privileges on database SNOWFLAKE, and hours of patience: the views are up
--     to eight hours behind the statements. Not run on the local stand-in, which has no such views and bills nobody.
-- Leaves behind: nothing. The statements themselves need a warehouse.
-- Prices are not in these views: multiply credits and terabytes by what your contract says.

use role accountadmin;

-- By run, notebook and SQL file: credits of the statements that carried the tutorial's tag. A warehouse's idle time is not
-- in them, nor are statements of less than a tenth of a second.
select
    try_parse_json(query_tag):run::varchar as run,
    try_parse_json(query_tag):notebook::varchar as notebook,
    try_parse_json(query_tag):step::varchar as step,
    count(*) as statements,
    min(start_time) as first_start,
    max(end_time) as last_end,
    sum(credits_attributed_compute) as credits,
    sum(credits_used_query_acceleration) as acceleration_credits
from snowflake.account_usage.query_attribution_history
where start_time > dateadd(day, -30, current_timestamp())
    and try_parse_json(query_tag):tutorial::varchar = 'snowflake-images'
group by 1, 2, 3
order by first_start;

-- By warehouse and day: all that it used, and how much of it was idle. Others who use the warehouse are in it.
select
    warehouse_name,
    to_date(start_time) as day,
    sum(credits_used_compute) as credits,
    sum(credits_used_compute) - sum(credits_attributed_compute_queries) as idle_credits,
    sum(credits_used_cloud_services) as cloud_services_credits
from snowflake.account_usage.warehouse_metering_history
where start_time > dateadd(day, -30, current_timestamp())
    and warehouse_name = 'CLOTHING_WH'
group by 1, 2
order by 2, 1;

-- By table, dropped ones too while they are billed: bytes now, in time travel, and in fail-safe.
select
    table_name,
    table_dropped,
    active_bytes / power(1024, 4) as terabytes,
    time_travel_bytes / power(1024, 4) as time_travel_terabytes,
    failsafe_bytes / power(1024, 4) as failsafe_terabytes
from snowflake.account_usage.table_storage_metrics
where table_catalog = 'CLOTHING'
    and table_schema = 'PUBLIC'
    and active_bytes + time_travel_bytes + failsafe_bytes > 0
order by terabytes desc;

-- By day: the internal stages of the whole account, which no view tells apart.
select
    usage_date,
    average_stage_bytes / power(1024, 4) as terabytes
from snowflake.account_usage.stage_storage_usage_history
where usage_date > dateadd(day, -30, current_date())
order by usage_date;
