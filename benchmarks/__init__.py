"""Measurements of the pump, its codec and its memory: ``python -m benchmarks [names...] [--quick] [--json FILE]``.

=================  ===================================================================================================
``floor``          the XML work of one message in a plain loop: what nothing built on it can undercut by much
``steps``          where a floor's time goes, step by step
``naive``          the same steps as the pump's, each an asynchronous stage of the stream
``pump``           conversations through the real pump
``codec``          the payload codec against pydantic-xml and xsdata
``orchestration``  sequences and buffers against the same calls made by hand, and cancelling many calls
``memory``         what is left of finished conversations
``fairness``       what a flooded agent does to another listener's latency
``mesh``           calls, streams, keys and values against a plain NATS client, and against ``openagentmesh``
=================  ===================================================================================================

Read the ratios, not the microseconds: another machine, or another tenant of this one, moves both sides of a ratio.
How a ratio is measured stands in `measure`; what is counted as a message, and how it is made sure that no work was left
out, in `drive`; what the floors contain, in `floor`.

The garbage collector keeps its default settings. No benchmark fails for being slow; each fails when a message was not
handled exactly once.
"""
