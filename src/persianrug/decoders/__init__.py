"""Decoders: in each file one decoder, or one kind, how it is tuned, and its law."""

from persianrug.decoders.base import Decoder, Elementwise
from persianrug.decoders.bayes import Bayes
from persianrug.decoders.bounds import relu_bounds, relu_scaling
from persianrug.decoders.cvamp import CVAMP
from persianrug.decoders.gains import encoder_gains
from persianrug.decoders.jumprelu import Gated, JumpReLU, ProLU
from persianrug.decoders.linear import Linear
from persianrug.decoders.lmmse import LMMSE
from persianrug.decoders.oamp import OAMP, StateEvolution, recovery_threshold
from persianrug.decoders.registry import DECODERS, from_recipe
from persianrug.decoders.relu import ReLU
from persianrug.decoders.soft import SoftThreshold
from persianrug.decoders.topk import TopK

__all__ = [
    "CVAMP",
    "DECODERS",
    "LMMSE",
    "OAMP",
    "Bayes",
    "Decoder",
    "Elementwise",
    "Gated",
    "JumpReLU",
    "Linear",
    "ProLU",
    "ReLU",
    "SoftThreshold",
    "StateEvolution",
    "TopK",
    "encoder_gains",
    "from_recipe",
    "recovery_threshold",
    "relu_bounds",
    "relu_scaling",
]
