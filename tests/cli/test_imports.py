"""What the package imports at once. Modules that take long to import are left to the code that needs them."""

import subprocess
import sys

import pytest

# Modules that take a tenth of a second or more to import.
SLOW = {"matplotlib", "scipy.stats", "sklearn", "tensorflow", "tensorflow_datasets", "torch"}

CONFIG = "from cake_jax.config import default, resolve; resolve(default())"
DRY_RUN = f"from cake_jax.run import dry_run; {CONFIG}"


@pytest.mark.parametrize("code", ["import cake_jax", "import cake_jax.cli", CONFIG, DRY_RUN])
def test_slow_modules_are_not_imported_at_once(code):
    command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    loaded = set(done.stdout.split())
    assert "cake_jax" in loaded
    assert not loaded & SLOW


def test_public_names_are_there_after_the_import():
    code = "import cake_jax; print([name for name in cake_jax.__all__ if not hasattr(cake_jax, name)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "[]"
