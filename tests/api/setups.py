"""The setups that API tests run over: the Site, and the storage driver."""

#: "httpsite" is HTTPSite, "twisted" is twisted.web's own Site.
SETUPS = ("httpsite-memory", "httpsite-files", "twisted-memory", "twisted-files")
#: Real S3 servers, for tests that do not depend on the driver.
BUCKETS = ("httpsite-ceph", "httpsite-swift")
SITES = ("httpsite-memory", "twisted-memory")
