"""Black boxes: teachers that only answer queries, within a budget."""

from cake_jax.black_box.black_box import BlackBox
from cake_jax.black_box.endpoint import Endpoint, Unanswered
from cake_jax.black_box.ledger import Ledger
from cake_jax.black_box.settings import QuerySettings

__all__ = ["BlackBox", "Endpoint", "Ledger", "QuerySettings", "Unanswered"]
