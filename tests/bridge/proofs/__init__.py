"""What the bridge promises, measured: with a real server and real nodes that are really killed.

The suite runs each proof in a small form and checks what can be counted. In full, with the times::

    python -m tests.bridge.proofs
    python -m tests.bridge.proofs replicas-embedded absence --small
"""
