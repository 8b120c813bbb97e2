# SPDX-License-Identifier: Apache-2.0
"""ATen operators with weights, pools, normalisations and attention."""

from __future__ import annotations

import math

from codesign.frontend.aten import Args, Result, handles, number_list
from codesign.frontend.lowering import Lowering, same_padding
from codesign.frontend.report import NotLowerable


@handles("conv2d.default", "conv2d.padding", "convolution.default")
def _conv2d(lower: Lowering, a: Args) -> Result:
    if a.values.get("transposed"):
        raise NotLowerable(
            "the IR has no transposed convolution; use nearest or bilinear resize and a convolution"
        )
    x, w = a.tensor("input"), a.tensor("weight")
    stride, dilation = a.pair("stride"), a.pair("dilation")
    shape, kernel = lower.shape(x), lower.shape(w)[2:]
    if a["padding"] == "valid":
        padding = (0, 0, 0, 0)
    elif a["padding"] == "same":
        if len(shape) != 4:
            raise NotLowerable(f"convolution of {lower.type(x)}; only [N, C, H, W] can be taken")
        size, window = (shape[2], shape[3]), (kernel[0], kernel[1])
        padding = same_padding(size, window, stride, dilation, lower=False)
    else:
        padding = a.pads("padding")
    return lower.conv2d(x, w, a.optional("bias"), stride, padding, dilation, a["groups"])


@handles("linear.default")
def _linear(lower: Lowering, a: Args) -> Result:
    return lower.linear(a.tensor("input"), a.tensor("weight"), a.optional("bias"))


@handles("addmm.default")
def _addmm(lower: Lowering, a: Args) -> Result:
    if a["alpha"] != 1 or a["beta"] != 1:
        raise NotLowerable("addmm with alpha or beta other than 1")
    bias, x, w = a.tensor("self"), a.tensor("mat1"), a.tensor("mat2")
    if lower.known(w) is not None and lower.shape(bias) == lower.shape(w)[1:]:
        return lower.linear(x, lower.transpose(w, (1, 0)), bias)
    return lower.add(lower.matmul(x, w, "product"), bias)


@handles("mm.default", "bmm.default")
def _mm(lower: Lowering, a: Args) -> Result:
    return lower.matmul(a.tensor("self"), a.tensor("mat2"))


@handles("matmul.default")
def _matmul(lower: Lowering, a: Args) -> Result:
    return lower.matmul(a.tensor("self"), a.tensor("other"))


@handles("baddbmm.default")
def _baddbmm(lower: Lowering, a: Args) -> Result:
    if a["alpha"] != 1 or a["beta"] != 1:
        raise NotLowerable("baddbmm with alpha or beta other than 1")
    product = lower.matmul(a.tensor("batch1"), a.tensor("batch2"), "product")
    return lower.add(product, a.tensor("self"))


@handles("_native_batch_norm_legit_no_training.default")
def _batch_norm(lower: Lowering, a: Args) -> Result:
    y = lower.batch_norm(
        a.tensor("input"), a.optional("weight"), a.optional("bias"),
        a.tensor("running_mean"), a.tensor("running_var"), a["eps"],
    )  # fmt: skip
    return [y]  # the other results are statistics that nobody reads at inference


@handles("batch_norm.default")
def _plain_batch_norm(lower: Lowering, a: Args) -> Result:
    if a["training"]:
        raise NotLowerable("batch norm in training mode; call eval() before the export")
    return lower.batch_norm(
        a.tensor("input"), a.optional("weight"), a.optional("bias"),
        a.tensor("running_mean"), a.tensor("running_var"), a["eps"],
    )  # fmt: skip


@handles("layer_norm.default", "native_layer_norm.default")
def _layer_norm(lower: Lowering, a: Args) -> Result:
    y = lower.layer_norm(
        a.tensor("input"), a.optional("weight"), a.optional("bias"),
        tuple(a["normalized_shape"]), a["eps"],
    )  # fmt: skip
    return [y] if "cudnn_enable" not in a.values else y


@handles("softmax.int", "_softmax.default")
def _softmax(lower: Lowering, a: Args) -> Result:
    return lower.softmax(a.tensor("self"), a["dim"])


@handles("scaled_dot_product_attention.default")
def _attention(lower: Lowering, a: Args) -> Result:
    if a["dropout_p"]:
        raise NotLowerable("attention with dropout; call eval() before the export")
    if a["enable_gqa"]:
        raise NotLowerable("attention with grouped queries; repeat the keys and values")
    return lower.attention(
        a.tensor("query"), a.tensor("key"), a.tensor("value"), a.optional("attn_mask"),
        a["is_causal"], a["scale"],
    )  # fmt: skip


@handles("max_pool2d.default", "max_pool2d_with_indices.default")
def _max_pool(lower: Lowering, a: Args) -> Result:
    stride = a.pair("stride") if a["stride"] else a.pair("kernel_size")
    return lower.pool(
        a.tensor("self"), "max", a.pair("kernel_size"), stride, a.pads("padding"),
        a.pair("dilation"), a["ceil_mode"],
    )  # fmt: skip


@handles("avg_pool2d.default")
def _avg_pool(lower: Lowering, a: Args) -> Result:
    kernel = a.pair("kernel_size")
    stride = a.pair("stride") if a["stride"] else kernel
    x, pads, divisor = a.tensor("self"), a.pads("padding"), a["divisor_override"]
    if divisor is None:
        return lower.pool(
            x, "avg", kernel, stride, pads, ceil=a["ceil_mode"], count_pad=a["count_include_pad"]
        )
    total = lower.pool(x, "sum", kernel, stride, pads, ceil=a["ceil_mode"])
    return lower.mul(total, lower.scalar(1 / divisor, "divisor"))


@handles("adaptive_avg_pool2d.default", "_adaptive_avg_pool2d.default")
def _adaptive_avg(lower: Lowering, a: Args) -> Result:
    return lower.adaptive_pool(a.tensor("self"), "avg", a["output_size"])


@handles("adaptive_max_pool2d.default")
def _adaptive_max(lower: Lowering, a: Args) -> Result:
    return [lower.adaptive_pool(a.tensor("self"), "max", a["output_size"])]


@handles("mean.default", "mean.dim")
def _mean(lower: Lowering, a: Args) -> Result:
    dims = number_list(a.values.get("dim"))
    return lower.reduce(a.tensor("self"), "mean", dims, a.values.get("keepdim", False))


@handles("sum.default", "sum.dim_IntList")
def _sum(lower: Lowering, a: Args) -> Result:
    dims = number_list(a.values.get("dim"))
    return lower.reduce(a.tensor("self"), "sum", dims, a.values.get("keepdim", False))


@handles("amax.default")
def _amax(lower: Lowering, a: Args) -> Result:
    return lower.reduce(a.tensor("self"), "max", number_list(a["dim"]), a["keepdim"])


@handles("upsample_nearest2d.vec", "upsample_nearest2d.default")
def _nearest(lower: Lowering, a: Args) -> Result:
    return lower.resize(a.tensor("input"), _size(lower, a), "nearest", "asymmetric", "floor")


@handles("_upsample_nearest_exact2d.vec", "_upsample_nearest_exact2d.default")
def _nearest_exact(lower: Lowering, a: Args) -> Result:
    size = _size(lower, a)
    return lower.resize(a.tensor("input"), size, "nearest", "half_pixel", "round_prefer_ceil")


@handles("upsample_bilinear2d.vec", "upsample_bilinear2d.default")
def _bilinear(lower: Lowering, a: Args) -> Result:
    coordinates = "align_corners" if a["align_corners"] else "half_pixel"
    return lower.resize(a.tensor("input"), _size(lower, a), "bilinear", coordinates)


def _size(lower: Lowering, a: Args) -> tuple[int, int]:
    """Size after the resize; the scale must give whole sizes, else coordinates differ."""
    x = a.tensor("input") if "input" in a.values else a.tensor("self")
    if a["output_size"] is not None:
        rows, columns = a["output_size"]
        return int(rows), int(columns)
    factors = a["scale_factors"]
    exact = [n * f for n, f in zip(lower.shape(x)[2:], factors)]
    sizes = [math.floor(n) for n in exact]
    if any(n != e for n, e in zip(sizes, exact)):
        raise NotLowerable(
            f"resize of {lower.type(x)} by {list(factors)} gives no whole size; use size=…"
        )
    return sizes[0], sizes[1]
