-- Purpose: drop what 02 to 06 made, and nothing else. Predictions are lost: notebook 06 exports them first.
-- Needs: a database of this name.
-- Leaves behind: the database; drop it too if 01_create_database.sql made it and nothing else is in it.

set database_name = 'CLOTHING';

use database identifier($database_name);

use schema public;

drop task if exists clothing_load_images;

drop stream if exists clothing_new_image;

drop view if exists clothing_prediction_change;

drop view if exists clothing_prediction;

drop view if exists clothing_unreadable;

drop table if exists clothing_failure;

drop table if exists clothing_prediction_log;

drop table if exists clothing_train;

drop table if exists clothing_test;

drop stage if exists clothing_dataset_train;

drop stage if exists clothing_dataset;
