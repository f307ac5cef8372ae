"""Gradients of NumPy functions by central differences, in float64."""

import numpy as np


def gradient_of(function, x, step=1e-6):
    """The gradient of a function of one array to a number, at x. Same shape as x."""
    x = np.array(x, np.float64)
    gradient = np.empty(x.size)
    flat = x.reshape(-1)
    for i, value in enumerate(flat.copy()):
        flat[i] = value + step
        above = function(x)
        flat[i] = value - step
        below = function(x)
        flat[i] = value
        gradient[i] = (above - below) / (2 * step)
    return gradient.reshape(x.shape)
