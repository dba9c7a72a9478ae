"""Sources of sketches, and decoders for them."""

import persianrug as pr

SOURCES = {
    "one-sided": lambda n, p: pr.SparseTruncatedNormal(pr.zipf_rates(n, p), 0.5, 1.0),
    "signed": lambda n, p: pr.SparseGaussian(pr.zipf_rates(n, p), 1.0),
}
DECODERS = {"one-sided": ["linear", "relu", "bayes", "oamp"], "signed": ["linear", "bayes", "oamp"]}
KINDS = [(kind, decoder) for kind, decoders in DECODERS.items() for decoder in decoders]
