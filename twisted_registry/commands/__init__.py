"""The commands of ``twisted-registry``: a module each, imported when it is asked for.

A command has ``arguments(parser)``, which adds what it takes to an ``argparse`` parser, and
``run(options)``, which does it and returns the exit status.
"""
