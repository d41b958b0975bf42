"""Checks of what a registry needs: files, store, certificates, network, limits."""
