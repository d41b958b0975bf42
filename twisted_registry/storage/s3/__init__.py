"""A client of S3-compatible object stores; imported only where the s3 driver is configured."""
