-- Purpose: what an administrator sets up once, so that the tutorial runs as a role that can do nothing else.
-- Needs: ACCOUNTADMIN, and the public key that belongs to the service user's private key (README, “Use your own
--     account”) in place of the text below. Not run on the local stand-in, which has no roles and no warehouses.
-- Leaves behind: role clothing_role, X-Small warehouse clothing_wh with resource monitor clothing_monitor, database
--     clothing, service user clothing_service. 09_drop_role_and_warehouse.sql takes them away.
-- Run it as a whole. CREATE fails where something of that name is there already, and nothing after it runs: what is
--     not the tutorial's is never taken over. Give yours other names here and in 09, or drop by hand what this made.
-- To run the tutorial as yourself: grant role clothing_role to user <you>. What your other roles may do counts as
--     well, unless the session begins with: use secondary roles none.

use role accountadmin;

-- It watches the warehouse, not what Snowflake runs by itself (auto_refresh, serverless tasks, AI functions). A night
-- of `make batch` that wakes the warehouse four times for two minutes makes four credits a month; the rest is for
-- people. At 90 percent nothing new is started, at 100 running statements stop too. Administrators hear of it if they
-- have turned notifications on in their profile; how others do is below.
create resource monitor clothing_monitor with
    credit_quota = 10
    frequency = monthly
    start_timestamp = immediately
    triggers
        on 75 percent do notify
        on 90 percent do suspend
        on 100 percent do suspend_immediate;

-- Of generation 2, Snowflake's default for new warehouses, an hour costs more than a credit; and query acceleration,
-- there on by default, is billed beside the warehouse, where the monitor does not look.
create warehouse clothing_wh
    warehouse_type = standard
    warehouse_size = 'X-SMALL'
    generation = '1'
    enable_query_acceleration = false
    auto_suspend = 60
    auto_resume = true
    initially_suspended = true
    resource_monitor = clothing_monitor;

create role clothing_role;

grant role clothing_role to role sysadmin;

grant usage on warehouse clothing_wh to role clothing_role;

create database clothing;

grant usage on database clothing to role clothing_role;

grant usage, create stage, create table, create view on schema clothing.public to role clothing_role;

-- A service user has no password, and nobody can log in to the web pages with it. Its statements end after ten
-- minutes; a session that needs longer says so: alter session set statement_timeout_in_seconds = 3600.
create user clothing_service
    type = service
    default_role = clothing_role
    default_secondary_roles = ()
    default_warehouse = clothing_wh
    statement_timeout_in_seconds = 600
    rsa_public_key = 'the public key, without its first and last line and without line breaks';

grant role clothing_role to user clothing_service;

-- All of it was made here: 09 drops nothing without this mark.
alter role clothing_role set comment = 'made by 00_role_and_warehouse.sql';

-- Optional, each with what undoes it, which comes before 09. Take the two dashes away from the lines that you want.
--
-- Messages of the monitor to people who are no administrators; each needs a verified e-mail address:
-- alter resource monitor clothing_monitor set notify_users = (my_user);
-- alter resource monitor clothing_monitor set notify_users = ();
--
-- What 07_load_every_night.sql needs:
-- grant create stream, create task on schema clothing.public to role clothing_role;
-- grant execute task on account to role clothing_role;
-- revoke execute task on account from role clothing_role;
-- revoke create stream, create task on schema clothing.public from role clothing_role;
--
-- Another key pair: set the second key, put the new private key in its place everywhere, then take the first away.
-- alter user clothing_service set rsa_public_key_2 = 'the new public key, likewise';
-- alter user clothing_service unset rsa_public_key;
--
-- Log-in by key pair only, whatever else is set for the user:
-- create authentication policy clothing.public.clothing_key_pair authentication_methods = ('KEYPAIR');
-- alter user clothing_service set authentication policy clothing.public.clothing_key_pair;
-- alter user clothing_service unset authentication policy;
-- drop authentication policy clothing.public.clothing_key_pair;
--
-- Log-in from your addresses only; a programmatic access token of a service user needs such a policy. The addresses
-- of a Saturn Cloud installation belong here too, and in a policy that the account has:
-- create network policy clothing_network allowed_ip_list = ('192.0.2.0/24');
-- alter user clothing_service set network_policy = clothing_network;
-- alter user clothing_service unset network_policy;
-- drop network policy clothing_network;
