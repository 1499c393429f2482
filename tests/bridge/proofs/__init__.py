"""What the bridge promises, measured: with a real server and real nodes that are really killed.

The suite runs each proof in a small form. In full, with the times::

    python -m tests.bridge.proofs
"""
