"""The setups that API tests run over: the Site, and the storage driver."""

#: "ours" is HTTPSite, "stock" is twisted.web's own Site.
SETUPS = ("ours-memory", "ours-files", "stock-memory", "stock-files")
#: Real S3 servers, for tests that do not depend on the driver.
BUCKETS = ("ours-ceph", "ours-swift")
SITES = ("ours-memory", "stock-memory")
