"""The set-ups that tests of the API run over: which Site answers, and where the bytes are."""

FLAVOURS = ("ours-memory", "ours-files", "stock-memory", "stock-files")
#: Real object stores, for the tests that say nothing of where the bytes are.
BUCKETS = ("ours-ceph", "ours-swift")
SITES = ("ours-memory", "stock-memory")
