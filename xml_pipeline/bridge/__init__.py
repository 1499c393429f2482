"""The bridge: an organism on the mesh. The only room that sees both the pump and the mesh.

What its parts are; a line may use those above it:

==============  ======================================================================================================
``failures``    errors of one side as errors of the other
``forms``       payloads as JSON, and what is said about them in a contract
``senders``     who sent what came
``extensions``  elements in ``meta``, that say where it came from
``baggage``     what crosses with a call, in headers
``letters``     calls between organisms, as envelopes
``refused``     what was not let in, recorded
``memory``      what came in already, to any node
``border``      signs what leaves, and verifies what enters
``incoming``    calls that come in, as JSON or as envelopes
``outgoing``    calls that go out, the same
``part``        what each entry of the ``mesh`` section becomes
``exposed``     a listener as an agent of the mesh
``peer``        an agent of the mesh as a listener
``bridge``      all of it, opened with a pump, changed with its configuration, and left in order
==============  ======================================================================================================
"""

from __future__ import annotations

from xml_pipeline.bridge.bridge import Bridge

__all__ = ["Bridge"]
