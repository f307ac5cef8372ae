"""Total variation, the data prior of the CAKE reference for images."""

from cake_jax.losses import total_variation
from cake_jax.synthesis.priors.prior import Prior

TOTAL_VARIATION = Prior(total_variation, needs_images=True)
