"""What README.md promises: its example runs, its commands exist, its links lead somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    agreement = float(capsys.readouterr().out.split()[-1])
    assert agreement > 0.9
    own = [line for line in example.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(own) <= 10, "a reader brings a teacher of their own in at most ten lines"


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_named_configs_and_scripts_are_there():
    for path in re.findall(r"(?:configs|scripts)/\w+\.py", README):
        assert (ROOT / path).exists(), path


def test_the_test_command_is_the_one_that_continuous_integration_runs():
    (command,) = re.findall(r"<!-- test command -->\n\n    (.*)\n\n<!-- end -->", README)
    assert command == "pip install -e '.[test]' && pytest"
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
