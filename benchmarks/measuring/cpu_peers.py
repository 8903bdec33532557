"""Providers on a CPU that others made, each as its own documentation says that it is fastest; no linear has a bias.

Who is not here, and why: ggml's Q4_0 × Q8_0, since its Python packages (llama-cpp-python, stable-diffusion-cpp-python)
run whole models and offer no call for one product.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.measuring.case import Case, Job, Provider
from benchmarks.measuring.peers import ORBITQUANT, TORCHAO, compare, plain_linear


def _plain(case: Case) -> Job:
    return Job(
        lambda: F.linear(case.x, case.weight), lambda out: compare(case, out), case.work(x_bytes=2, weight_bytes=2)
    )


def _sdnq(case: Case) -> Job:
    """Weights and, as they come, activations in int8, one scale a row and a token; OpenVINO multiplies, if there."""
    from sdnq import SDNQConfig, sdnq_quantize_layer

    config = SDNQConfig(weights_dtype="int8", use_quantized_matmul=True)
    layer, _ = sdnq_quantize_layer(plain_linear(case), config)
    return Job(lambda: layer(case.x), lambda out: compare(case, out), case.work(x_bytes=2, weight_bytes=1))


def _openvino(case: Case) -> Job:
    """What its quantizer writes: weights in int8 with a scale a row, activations in a fixed range of 256 levels.

    Float32 in and out. The range, which calibration would find, is that of these very activations.
    """
    import openvino as ov
    from openvino import opset13 as ops

    x, weight = case.x.float().numpy(), case.weight.float().numpy()
    bound = np.float32(np.abs(x).max())
    low, high = -bound * np.float32(128 / 127), bound
    scale = np.abs(weight).max(axis=1, keepdims=True) / 127
    codes = np.rint(weight / scale).astype(np.int8)
    entry = ops.parameter(x.shape, np.float32)
    levels = ops.fake_quantize(entry, low, high, low, high, 256)
    decoded = ops.multiply(ops.convert(ops.constant(codes), np.float32), ops.constant(scale.astype(np.float32)))
    model = ov.Model([ops.matmul(levels, decoded, False, True)], [entry])
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))

    def call() -> torch.Tensor:
        request.infer()
        return torch.from_numpy(request.get_output_tensor().data)

    return Job(call, lambda out: compare(case, out), case.work(x_bytes=4, weight_bytes=1, out_bytes=4))


FLOAT32, BFLOAT16 = Provider("float32", "", _plain, "torch"), Provider("bfloat16", "", _plain, "torch")
SDNQ = Provider("sdnq", "W8A8", _sdnq, "sdnq")
OPENVINO = Provider("openvino", "W8A8, fixed range", _openvino, "openvino")
PEERS = (TORCHAO, SDNQ, ORBITQUANT, OPENVINO)
