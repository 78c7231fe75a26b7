-- Purpose: what an administrator sets up once for images in a bucket of yours (S3), so that nobody who reads the stage
--     ever holds the bucket's keys. Only for 02_create_stages_external.sql.
-- Needs: ACCOUNTADMIN, 00_role_and_warehouse.sql, and an AWS role that may read the bucket (s3:GetObject,
--     s3:GetObjectVersion, s3:ListBucket, s3:GetBucketLocation). Put your bucket and that role in place of those below.
-- Leaves behind: integration clothing_images. What DESC shows of it (the user's ARN and the external id) goes into the
--     trust policy of the AWS role: before 02_create_stages_external.sql, which lists the bucket at once.
--     09_drop_role_and_warehouse.sql takes it away. CREATE fails where an integration of that name is there already.
-- On Azure: storage_provider = 'AZURE', azure_tenant_id = '<tenant>' in place of the AWS role, and locations
--     azure://<account>.blob.core.windows.net/<container>/clothing/; DESC shows the address where you consent.
-- On Google Cloud: storage_provider = 'GCS', no role, and locations gcs://<bucket>/clothing/; DESC shows the service
--     account that needs to read the bucket.

use role accountadmin;

create storage integration clothing_images
    type = external_stage
    storage_provider = 'S3'
    enabled = true
    storage_aws_role_arn = 'arn:aws:iam::123456789012:role/read-clothing-images'
    storage_allowed_locations = ('s3://my-bucket/clothing/')
    comment = 'made by 00_storage_integration.sql';

grant usage on integration clothing_images to role clothing_role;

desc integration clothing_images;
