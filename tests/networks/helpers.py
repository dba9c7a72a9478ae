"""Weights of encoders."""

import persianrug as pr


def of(encoder):
    return encoder.W_out().numpy(), encoder.W_in().numpy()


W_OUT, W_IN = of(pr.Rug(16, 4))
