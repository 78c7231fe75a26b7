-- Purpose: what an administrator sets up once, so that the tutorial runs as a role that can do nothing else.
-- Needs: ACCOUNTADMIN, and the public key that belongs to the service user's private key (README, “Use your own
--     account”) in place of the text below. Not run on the local stand-in, which has no roles and no warehouses.
-- Leaves behind: role clothing_role, X-Small warehouse clothing_wh with resource monitor clothing_monitor, database
--     clothing, service user clothing_service. 09_drop_role_and_warehouse.sql takes them away.
-- To run the tutorial as yourself: grant role clothing_role to user <you>.

use role accountadmin;

-- When the month's credits are used up, the warehouse stops, running statements too.
create resource monitor if not exists clothing_monitor with
    credit_quota = 5
    frequency = monthly
    start_timestamp = immediately
    triggers
        on 80 percent do notify
        on 100 percent do suspend_immediate;

create warehouse if not exists clothing_wh
    warehouse_size = 'X-SMALL'
    auto_suspend = 60
    auto_resume = true
    initially_suspended = true
    statement_timeout_in_seconds = 600
    resource_monitor = clothing_monitor;

create role if not exists clothing_role;

grant role clothing_role to role sysadmin;

grant usage on warehouse clothing_wh to role clothing_role;

create database if not exists clothing;

grant usage on database clothing to role clothing_role;

grant usage, create stage, create table, create view on schema clothing.public to role clothing_role;

-- A service user has no password, and nobody can log in to the web pages with it.
create user if not exists clothing_service
    type = service
    default_role = clothing_role
    default_warehouse = clothing_wh
    rsa_public_key = 'the public key, without its first and last line and without line breaks';

grant role clothing_role to user clothing_service;
