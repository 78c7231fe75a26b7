-- Purpose: take away what the two files numbered 00 made. With it goes database clothing, and all that is in it.
-- Needs: ACCOUNTADMIN. Notebook 06 before it, if the predictions are to be kept: it exports them.
-- Leaves behind: nothing of the tutorial.

use role accountadmin;

drop user if exists clothing_service;

drop database if exists clothing;

drop integration if exists clothing_images;

drop warehouse if exists clothing_wh;

drop resource monitor if exists clothing_monitor;

drop role if exists clothing_role;
