# SPDX-License-Identifier: Apache-2.0
"""The standard pipelines."""

from __future__ import annotations

from codesign.passes.pipeline import Pipeline, parse_pipeline


def prepare(*, reparameterise: bool = True, equalise: bool = False, add: bool = True) -> Pipeline:
    """What a float network goes through before quantization, in this order:

    1. eliminate-dead-code, fold-constants, remove-identities, recognise-activations,
       common-subexpressions: a clean graph, so that patterns are not hidden;
    2. fold-batch-norm, then reparameterise (optional): parallel branches become one convolution;
    3. legalise, remove-identities, common-subexpressions, legalise: the forms targets take,
       without what became trivial or double (which may let a layer take one factor more);
    4. fuse: bias, activation and (with ``add``) the residual into the layer;
    5. equalise (optional, last because it looks at fused activations): semantics preserved.

    Every step preserves what the network computes up to float rounding.
    """
    parts = [
        "eliminate-dead-code", "fold-constants", "remove-identities", "recognise-activations",
        "common-subexpressions", "fold-batch-norm",
        *(["reparameterise"] if reparameterise else []),
        "legalise", "remove-identities", "common-subexpressions", "legalise",
        "fuse" if add else "fuse{add=false}",
        *(["equalise"] if equalise else []),
        "eliminate-dead-code",
    ]  # fmt: skip
    return parse_pipeline(",".join(parts))
