-- Purpose: the same two stages over files that stay in your S3 bucket; instead of 02_create_stages.sql.
-- Needs: 01_create_database.sql and 00_storage_integration.sql, which also tells the form of the url on Azure and Google
--     Cloud. Put your bucket in place of my-bucket. Without an integration a stage in S3 can hold keys of the bucket
--     itself, credentials = (aws_key_id = '…' aws_secret_key = '…'): they stand in the query history of whoever
--     made it and have to be renewed by hand, so this is for a test at most. On Azure, URLs are signed only with one.
-- Leaves behind: stages clothing_dataset (test images) and clothing_dataset_train (training images).

create stage if not exists clothing_dataset
    url = 's3://my-bucket/clothing/test/'
    storage_integration = clothing_images
    directory = (enable = true);

create stage if not exists clothing_dataset_train
    url = 's3://my-bucket/clothing/train/'
    storage_integration = clothing_images
    directory = (enable = true);
