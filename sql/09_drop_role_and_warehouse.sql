-- Purpose: take away what the two files numbered 00 made. With it goes database clothing, and all that is in it:
--     look first, with show objects in database clothing.
-- Needs: ACCOUNTADMIN. Notebook 06 before it, if the predictions are to be kept: it exports them.
-- Leaves behind: nothing of the tutorial. Run it as a whole: what these names stand for may be somebody else's unless
--     the files 00 ran to their end and left their mark, and without it a SHOW below fails with “Division by zero”,
--     and nothing after it runs. What a file 00 did make before it failed is then yours to drop by hand.

use role accountadmin;

show roles like 'CLOTHING_ROLE'
    ->> select 1 / count_if("comment" = 'made by 00_role_and_warehouse.sql') as made_by_00 from $1;

show integrations like 'CLOTHING_IMAGES'
    ->> select 1 / iff(count(*) = count_if("comment" = 'made by 00_storage_integration.sql'), 1, 0) as made_by_00
    from $1;

drop user if exists clothing_service;

drop database if exists clothing;

drop integration if exists clothing_images;

drop warehouse if exists clothing_wh;

drop resource monitor if exists clothing_monitor;

drop role if exists clothing_role;
