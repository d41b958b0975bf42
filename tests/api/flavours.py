"""The set-ups that tests of the API run over: which Site answers, and where the bytes are."""

FLAVOURS = ("ours-memory", "ours-files", "stock-memory", "stock-files")
SITES = ("ours-memory", "stock-memory")
