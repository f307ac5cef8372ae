"""Strategies of hypothesis: command lines and library arguments of which most are wrong."""

from hypothesis import strategies as st

from cake_jax.config import default
from cake_jax.methods import METHODS
from cake_jax.run.run_folder import flat

# A method decides whether its own fields are looked at, and the section of stages what is run at all.
FIELDS = dict(sorted(flat(default().to_dict())))
# Larger sizes are right, and take hours.
INTEGERS = ["-1", "0", "1", "2", "3", "7", "-999999999999999999999"]
NUMBERS = [*INTEGERS, "nan", "inf", "-inf", "1e400", "1e-320", "0.5", "1.5", "-0.5", "1e6", "0x10", "1_0", "٣"]
WORDS = ["", " ", "none", "None", "cake", "normal", "strokes", "adam", "adamw", "kl", "l2", "mlp", "cnn", "vit_small"]
WORDS += ["labels", "scores", "two_moons", "digits", "npz", "folder", "linear", "cosine", "snn", "bf16", "one_cycle"]
TUPLES = ["()", "(1,)", "(1,2)", "(-1,)", "(0.0,)", "(0,0,0)", "('crop',)", "('normal',)", "('normal','x')", "(None,)"]
SIGNS = ["[", "{", "{'a': 1}", "[1,", "'", '"', "\\", "%s", "{0}", "$HOME", "~", "*", "--", "a=b"]
PATHS = ["/", ".", "..", "/dev/null", "/nonexistent/file", "missing.npz", "a:b", "os:getcwd", "http://127.0.0.1:9/x"]
BY_TYPE = {bool: ["true", "false", "0", "1"], int: INTEGERS, float: NUMBERS, tuple: TUPLES, str: [*WORDS, *PATHS]}
# Not a control character, because no shell passes a zero byte, nor half of a surrogate pair.
TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)


@st.composite
def misspelt(draw):
    """The name of a field with a letter less, twice, or of another field."""
    name = draw(st.sampled_from([*FIELDS]))
    place = draw(st.integers(0, len(name) - 1))
    return draw(
        st.sampled_from([name[:place] + name[place + 1 :], name[:place] + name[place] + name[place:], name + "s"])
    )


@st.composite
def overrides(draw):
    """One override of a field, whose value mostly does not fit."""
    kind = draw(st.integers(0, 9))
    name = draw(misspelt() if kind == 0 else st.sampled_from([*FIELDS]))
    fitting = BY_TYPE.get(type(FIELDS.get(name)), NUMBERS)
    if kind == 1:
        fitting = [*NUMBERS, *WORDS, *TUPLES, *SIGNS, *PATHS]
    elif kind == 2:
        return f"--config.{name}={draw(TEXTS)}"
    return f"--config.{name}={draw(st.sampled_from(fitting))}"


OTHER_FLAGS = st.sampled_from(
    ["--cpu_devices=x", "--num_processes=0", "--process_id=-1", "--dry_run", "--print_config", "--nope", "stray", "--"]
)


@st.composite
def command_lines(draw):
    """The arguments of a command after its config and folder."""
    method = [f"--config.method={draw(st.sampled_from([*METHODS]))}"] if draw(st.booleans()) else []
    others = [draw(OTHER_FLAGS)] if draw(st.integers(0, 5)) == 0 else []
    return method + draw(st.lists(overrides(), min_size=1, max_size=3)) + others
