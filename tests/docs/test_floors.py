"""A file imports only from its own wing and from wings on lower floors, as the table in docs/design.md has them."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cake_jax"
GROUND = "ground"


def floors() -> dict[str, int]:
    """The floor of each wing; the files of floor 0 together are one wing."""
    table = re.findall(r"^\| (\d+) \| ((?:`[^`]+`(?:, )?)+) \|", (ROOT / "docs" / "design.md").read_text(), re.M)
    return {name.strip("`").rstrip("/"): int(floor) for floor, names in table for name in names.split(", ")}


def wing_of(module: str, known: dict[str, int]) -> str:
    """The wing that a module of the package belongs to."""
    name = module.split(".")[1]
    return GROUND if known[name] == 0 else name


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("cake_jax"):
            bare = node.module == "cake_jax"
            found |= {f"cake_jax.{alias.name}" for alias in node.names} if bare else {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("cake_jax.")}
    return found


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_every_file_belongs_to_a_wing_of_the_table() -> None:
    in_package = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES}
    assert in_package == set(floors())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_from_lower_floors_only(path: Path) -> None:
    known = floors()
    module = ".".join(("cake_jax", *path.relative_to(PACKAGE).with_suffix("").parts))
    wing = wing_of(module, known)
    height = known[module.split(".")[1]]
    upward = {name for name in imports(path) if wing_of(name, known) != wing and known[name.split(".")[1]] >= height}
    assert not upward, f"{path.relative_to(ROOT)} on floor {height} imports {sorted(upward)}"


def test_the_imports_of_a_file_are_found(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(
        "def f():\n    from cake_jax import config, types\n    import cake_jax.run.run_folder\n    import jax\n"
    )
    assert imports(path) == {"cake_jax.config", "cake_jax.types", "cake_jax.run.run_folder"}
