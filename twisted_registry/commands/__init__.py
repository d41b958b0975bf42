"""The commands of ``twisted-registry``, one module each, imported only when it is run.

A command module has ``add_arguments(parser)``, which adds its arguments to an ``argparse`` parser,
and ``run(options)``, which runs the command and returns the exit status.
"""
