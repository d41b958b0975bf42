"""The domain over any storage driver: blobs, manifests, tags, uploads, referrers."""
