-- Purpose: two internal stages, whose files Snowflake itself stores.
-- Needs: 01_create_database.sql.
-- Leaves behind: stages clothing_dataset (test images) and clothing_dataset_train (training images).
-- Server-side encryption is what lets a signed URL give readable bytes; a stage's encryption cannot be changed later.

create stage if not exists clothing_dataset
    encryption = (type = 'SNOWFLAKE_SSE')
    directory = (enable = true);

create stage if not exists clothing_dataset_train
    encryption = (type = 'SNOWFLAKE_SSE')
    directory = (enable = true);
