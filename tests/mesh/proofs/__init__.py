"""What the mesh promises, measured: with real servers and real processes that are really killed.

The suite runs each proof in a small form and checks what can be counted. In full, with the times::

    python -m tests.mesh.proofs
    python -m tests.mesh.proofs crashes hostile --small
"""
