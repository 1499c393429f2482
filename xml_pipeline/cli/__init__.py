"""The command line. One verb per file, put together in `main`; the only room that prints.

A verb's module imports what its options need, and everything else inside its function: ``--help`` and ``version`` are
to answer before a pump could be imported.
"""
