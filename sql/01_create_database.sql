-- Purpose: the database that holds stages and tables.
-- Needs: a role that may create databases, or a database of this name.
-- Leaves behind: the database, as the session's current one.

set database_name = 'CLOTHING';

create database if not exists identifier($database_name);

use database identifier($database_name);

use schema public;
