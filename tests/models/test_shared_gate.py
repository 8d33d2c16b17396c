"""The gate of a shared expert: open or closed, however far its logits go."""

import warnings

import numpy as np

from edgemoe import native
from edgemoe.models.moe import MoELayer
from edgemoe.models.spec import ExpertSpec, MoESpec, RouterSpec, SharedExpertSpec

WIDTH, EXPERTS = 32, 2


class Weights:
    """Ones everywhere; the gate's row is -1000: the exp of its logit is more than a float holds."""

    def matrix(self, name):
        shapes = {"router": (EXPERTS, WIDTH), "shared_gate": (1, WIDTH)}
        shape = shapes.get(name.split(".")[2], (WIDTH, WIDTH))
        values = np.full(shape, -1000 if "shared_gate" in name else 1, np.float32)
        return native.Matrix(native.quantize(values, "f32"), "f32", *shape)

    def optional_vector(self, name):
        return None


class NoExperts:
    def run(self, layer, x, expert_ids, weights, rehearse=None, seen=None):
        return np.zeros_like(x)


def test_a_gate_that_is_closed_as_far_as_can_be_says_nothing():
    router = RouterSpec(EXPERTS, 1, "softmax", True)
    shared = SharedExpertSpec(WIDTH, "silu", has_gate=True)
    layer = MoELayer(MoESpec(router, ExpertSpec(WIDTH, "silu"), shared), Weights(), 0, NoExperts())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = layer(np.ones((1, WIDTH), np.float32))
    assert np.abs(y).max() < 1e-30
