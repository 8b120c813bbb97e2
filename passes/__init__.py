# SPDX-License-Identifier: Apache-2.0
"""Graph passes: pure functions from graph to graph, found by name.

``PASSES`` names them all, ``parse_pipeline`` reads a spec such as
``fold-batch-norm,fuse{add=false}``, ``prepare()`` is what float networks go through before
quantization. What each pass does and guarantees: docs/passes.md.
"""

from codesign.passes.base import Pass
from codesign.passes.pipeline import PassTiming, Pipeline, PipelineResult, parse_pipeline
from codesign.passes.standard import prepare
from codesign.registry import Registry

PASSES = Registry(
    "pass",
    "codesign.passes",
    {
        "common-subexpressions": "codesign.passes.common_subexpressions:CommonSubexpressions",
        "eliminate-dead-code": "codesign.passes.eliminate_dead_code:EliminateDeadCode",
        "equalise": "codesign.passes.equalise:Equalise",
        "fold-batch-norm": "codesign.passes.fold_batch_norm:FoldBatchNorm",
        "fold-constants": "codesign.passes.fold_constants:FoldConstants",
        "fuse": "codesign.passes.fuse:Fuse",
        "legalise": "codesign.passes.legalise:Legalise",
        "recognise-activations": "codesign.passes.recognise_activations:RecogniseActivations",
        "remove-identities": "codesign.passes.remove_identities:RemoveIdentities",
        "reparameterise": "codesign.passes.reparameterise:Reparameterise",
    },
)
"""All passes by name; packages add theirs through the entry point ``codesign.passes``."""

__all__ = [
    "PASSES", "Pass", "PassTiming", "Pipeline", "PipelineResult", "parse_pipeline", "prepare",
]  # fmt: skip
