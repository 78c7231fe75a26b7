"""Chapter 3, what is done: from a table of images to Parquet parts, each image one row."""
