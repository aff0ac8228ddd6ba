"""The network of the notebook in the SIP author's repository: layer 0, eight single steps ahead."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from kvharness_policies.sip.scorer import Heads, Outlook

if TYPE_CHECKING:
    from torch import Tensor

    from kvharness_policies.sip.scorer import Shape

STEPS = 8
_WIDTH, _INNER, _HEADS, _DROP = 256, 512, 4, 0.1
#: Of the sinusoidal codes (Vaswani et al. 2017).
_PERIOD = 10_000.0


class NotebookScorer(nn.Module):
    """1,683,719 weights for a model with four KV heads of size 64, as in the notebook.

    Keys and values of the first layer are encoded, joined by attention over the whole sequence
    and given codes of position, of distance to the end, and of the step ahead; an encoder of two
    layers then looks at all tokens again for each of the 8 steps.

    Its listing leaves one thing open: the count above takes one more LayerNorm of 512 weights,
    which stands here after the joint features.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        # The notebook takes keys and values as they are; these are saved, never applied.
        stored = (2, shape.layers, shape.kv_heads, shape.head_size)
        self.register_buffer("mean", torch.zeros(stored))
        self.register_buffer("deviation", torch.ones(stored))
        self.key_encoder, self.value_encoder = (_encoder(shape.head_size) for _ in range(2))
        self.joint = nn.MultiheadAttention(_WIDTH, _HEADS, dropout=_DROP, batch_first=True)
        self.fuse = nn.Sequential(nn.Linear(2 * _WIDTH, _WIDTH), nn.LayerNorm(_WIDTH))
        self.ahead = nn.Parameter(torch.randn(STEPS, _WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(
            _WIDTH, _HEADS, _INNER, _DROP, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.importance, self.confidence = (_readout() for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(shape.kv_heads))
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, heads: Heads) -> Outlook:
        joint = self._joint(heads)
        tokens = joint.shape[1]
        order = torch.arange(tokens, device=joint.device)
        place = joint + _code(order) + _code(tokens - order)
        found = [self._step(place, step, heads.head) for step in range(STEPS)]
        important = torch.stack([each for each, _ in found], dim=-1)
        confidence = torch.stack([each for _, each in found], dim=-1)
        weights = confidence.sigmoid().softmax(dim=-1)
        return Outlook(
            important=important,
            confidence=confidence,
            score=(weights * important.sigmoid()).sum(dim=-1).float(),
        )

    def _joint(self, heads: Heads) -> Tensor:
        keys, values = (
            self.key_encoder(heads.keys.float()),
            self.value_encoder(heads.values.float()),
        )
        seen, _ = self.joint(keys, values, values, need_weights=False)
        joint: Tensor = self.fuse(torch.cat((keys, seen), dim=-1))
        return joint

    def _step(self, place: Tensor, step: int, head: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of importance and of confidence, ``[B, n]`` each."""
        code = _code(torch.tensor([step], device=place.device))
        seen = self.encoder(place + code + self.ahead[step])
        important = (self.importance(seen)[..., 0] + self.bias[head][:, None]) / self.temperature
        return important, self.confidence(seen)[..., 0]


def _encoder(size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(size, _WIDTH),
        nn.LayerNorm(_WIDTH),
        nn.GELU(),
        nn.Dropout(_DROP),
        nn.Linear(_WIDTH, _WIDTH),
    )


def _readout() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(_WIDTH, _WIDTH // 2),
        nn.LayerNorm(_WIDTH // 2),
        nn.GELU(),
        nn.Linear(_WIDTH // 2, 1),
    )


def _code(order: Tensor) -> Tensor:
    """Sines and cosines, ``[n, 256]``."""
    rates = torch.arange(0, _WIDTH, 2, device=order.device) * (-math.log(_PERIOD) / _WIDTH)
    angles = order[:, None] * rates.exp()
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
