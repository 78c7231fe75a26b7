-- Purpose: the same two stages over files that stay in your S3 bucket; instead of 02_create_stages.sql.
-- Needs: 01_create_database.sql, and a storage integration named clothing_images that an administrator has made,
--     so that nobody who reads the stage ever holds the bucket's keys. Put your bucket in place of my-bucket.
-- Leaves behind: stages clothing_dataset (test images) and clothing_dataset_train (training images).

create stage if not exists clothing_dataset
    url = 's3://my-bucket/clothing/test/'
    storage_integration = clothing_images
    directory = (enable = true);

create stage if not exists clothing_dataset_train
    url = 's3://my-bucket/clothing/train/'
    storage_integration = clothing_images
    directory = (enable = true);
