"""A teacher behind a query interface, which records how many inputs it is asked at once."""

import numpy as np
from smooth_teacher import SPEC, logits_of


class Counting:
    """Answers with the logits of a NumPy function. It counts repeated inputs too, unlike a black box.

    Attributes:
      calls: Numbers of inputs, one for each call.
    """

    num_params = None

    def __init__(self, function=logits_of, spec=SPEC, access="scores"):
        self.function, self.spec, self.access, self.calls = function, spec, access, []

    def predict(self, x):
        self.calls.append(len(x))
        return self.function(np.asarray(x)).astype(np.float32)

    @property
    def queries(self):
        return sum(self.calls)
