# SPDX-License-Identifier: Apache-2.0
"""Networks in: PyTorch modules, ``.pt2``, ONNX, the zoo and text IR to the graph IR.

>>> from codesign.frontend import load_network
>>> network = load_network("zoo:digits")
>>> network.name, network.graph.type(network.graph.outputs[0]).shape
('digits', (1, 10))
"""

from __future__ import annotations

from codesign.frontend.load import from_onnx, from_torch, load_network
from codesign.frontend.network import Network, content_hash

__all__ = ["Network", "content_hash", "from_onnx", "from_torch", "load_network"]
