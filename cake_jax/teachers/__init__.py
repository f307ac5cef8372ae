"""Ways to turn anything trained into a `Teacher`: a pure, differentiable callable with a data specification."""

from cake_jax.teachers.teacher import LinenApply, Teacher, as_teacher, from_function, from_linen

__all__ = ["LinenApply", "Teacher", "as_teacher", "from_function", "from_linen"]
