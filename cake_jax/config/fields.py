"""Every field of a config with its default, and the variants of config files."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from cake_jax import checks, methods
from cake_jax.methods.method import GuideSettings, own_fields
from cake_jax.run.run_folder import flat
from cake_jax.run.settings import Stages
from cake_jax.stores.metrics import WRITERS
from cake_jax.synthesis.priors import PRIORS
from cake_jax.types import CakeError


def default() -> ConfigDict:
    """A locked config with all fields. The defaults suit small images."""
    config = ConfigDict()
    config.seed = 0
    config.method = "cake"  # a name in cake_jax.methods.METHODS

    # Each method's own settings, in addition to config.synthesis. The method's file describes them.
    config.methods = ConfigDict({name: _own_defaults(method) for name, method in methods.METHODS.items()})

    # Stages, each on or off. If a later stage needs the result of a stage that is off, set from_run to an earlier run.
    config.run = ConfigDict(dataclasses.asdict(Stages()))

    config.dataset = ConfigDict()
    config.dataset.name = "digits"  # a name in cake_jax.data.SOURCES; none if there are no data
    # Without data: the shape of one input, such as (32, 32, 3), and the number of classes.
    config.dataset.shape = ()
    config.dataset.num_classes = 0
    # Folder of prepared TFDS data sets (empty for TFDS's default), folder of images, or an .npz file.
    config.dataset.data_dir = ""
    config.dataset.image_size = 0  # height and width to which images of `folder` are scaled; 0 if all have one size
    # File of the names of the classes of `folder`, one in each line, in the order of the teacher's outputs. If empty,
    # names that are all numbers are in the order of the numbers, and others in alphabetical order.
    config.dataset.class_names = ""
    config.dataset.max_train_examples = 0  # highest number of training examples; 0 for all
    # Mean and standard deviation of the pixels: one value for each channel, or one for all. Empty takes the data set's
    # own values. Weights that were trained elsewhere need the values of that training.
    config.dataset.mean = ()
    config.dataset.std = ()

    config.teacher = _training(validation_fraction=0.1)
    config.teacher.from_run = ""  # folder of a finished run whose teacher is used; then no teacher is trained
    config.teacher.weights = ""  # safetensors or PyTorch file of weights for teacher.model; then no teacher is trained
    config.teacher.temperature = 1.0  # the teacher's logits are divided by it; above 1 for logits of several hundred

    # A teacher that only answers queries. Without url and function, the run's own teacher answers.
    config.black_box = ConfigDict()
    config.black_box.answers = ""  # labels, scores (probabilities) or logits; empty for a white box
    config.black_box.budget = 0  # highest number of charged queries in all; required
    config.black_box.url = ""  # address of an HTTP endpoint
    config.black_box.body = "json"  # json or npy
    config.black_box.authorization = ""  # environment variable that holds the value of the header Authorization
    config.black_box.timeout = 60.0  # seconds to wait without data from the server
    config.black_box.function = ""  # module:name of a function of pixels
    config.black_box.pixels = True  # whether a function or endpoint receives pixels; else normalised inputs
    config.black_box.max_rows = 256  # highest number of inputs in a request
    config.black_box.rows_per_second = 0.0  # highest number of inputs in a second; 0 for no limit
    config.black_box.requests_per_second = 0.0  # highest number of requests in a second; 0 for no limit
    config.black_box.tries = 6  # how often a request is sent before the run stops
    config.black_box.ledger = ""  # file of queries and answers; empty for ledger.sqlite in the run's folder
    # Whether an endpoint or function is queried for the test set too. These queries are charged.
    config.black_box.evaluate = False

    config.student = _training(validation_fraction=0.01)
    config.student.from_run = ""  # folder of a finished run whose student is trained further; it has student.model
    config.student.temperature = 1.0  # temperature tau of the soft labels
    config.student.hard_weight = 0.0  # weight of the cross entropy to the hard label
    config.student.distance = "kl"  # of the student's logits from the teacher's: kl, l1 or l2 (means over classes)
    # Views: inputs that the teacher labels anew in each step, after student.augment.
    config.student.views = ConfigDict()
    config.student.views.ask = False  # whether the teacher labels each batch; each input is a query
    config.student.views.fresh = ()  # names in cake_jax.starts.STARTS; each step draws new inputs from them
    config.student.views.fresh_share = 0.5  # share of a batch that is drawn anew
    config.student.views.mixup = 0.0  # share of the inputs that are mixed with another one
    config.student.views.cutmix = 0.0  # share of the images of which a rectangle comes from another one
    config.student.views.adversary = 0.0  # share of a batch that a generator makes, which learns against the student
    config.student.views.adversary_every = 5  # number of the student's steps for each step of that generator
    config.student.views.adversary_rate = 1e-3  # learning rate of that generator
    config.student.memory_gb = 4.0  # memory limit; samples above it are read from the disk during the training

    config.synthesis = ConfigDict()
    config.synthesis.num_batches = 10  # M, the number of mini-batches
    config.synthesis.batch_size = 500  # N, the number of samples in a mini-batch
    config.synthesis.num_groups = 10  # G, the number of samples in a set, all with different target classes
    config.synthesis.num_steps = 256  # T, the number of steps of a sample
    config.synthesis.step_size = 0.1  # step size of the first mini-batch
    config.synthesis.schedule = "linear"  # how log10(step size) changes over mini-batches: constant, linear or cosine
    config.synthesis.decay_magnitude = 4.0  # number of decades by which the step size falls
    config.synthesis.optimizer = "sgd"  # sgd or adam
    config.synthesis.langevin_temperature = config_dict.placeholder(float)  # T_L; None takes the method's value
    # Whether samples of CAKE, LAKE, naive and inversion stay in the valid range of pixels.
    config.synthesis.clip = False
    config.synthesis.precision = "float32"  # precision of the teacher's arithmetic: float32 or bf16
    config.synthesis.start = "normal"  # a name in cake_jax.starts.STARTS; all but normal are for images
    config.synthesis.candidates = 1  # number of starts drawn for each sample; the teacher chooses one of its class
    config.synthesis.targets = "distinct"  # a name in cake_jax.synthesis.targets.TARGETS
    config.synthesis.contrastive = "mse"  # mse or snn
    config.synthesis.snn_temperature = 1.0  # temperature of snn, in squared logit units
    # Weights of the loss terms. Each data prior of cake_jax.synthesis.priors.PRIORS has its own weight.
    config.synthesis.weights = ConfigDict({"cls": 1.0, "contr": 1.0, **dict.fromkeys(PRIORS, 0.0), "entropy": 0.0})
    config.synthesis.sets_per_chunk = 0  # sets that take their steps together on a device; 0 chooses
    # The student trains on samples whose step size is in this range. Other samples are made, but not used.
    config.synthesis.min_step_size = config_dict.placeholder(float)
    config.synthesis.max_step_size = config_dict.placeholder(float)
    config.synthesis.from_run = ""  # folder of a finished run whose samples are used; then no samples are made

    # Metrics writers in addition to metrics.jsonl, each on or off.
    config.log = ConfigDict(dict.fromkeys(WRITERS, False))
    config.log.profile = False  # whether JAX traces of one epoch or mini-batch of each stage are written to profile/
    return config.lock()


def with_variant(config: ConfigDict, variant: str, variants: Mapping[str, Mapping[str, Any]]) -> ConfigDict:
    """Applies a variant to a config.

    Args:
      config: The config without a variant. It is changed in place.
      variant: The text after the colon in `--config=file.py:variant`. Empty for none.
      variants: The fields that each variant changes, by its name: `{"smoke": {"synthesis.num_steps": 8}}`.

    Returns:
      `config`.

    Raises:
      CakeError: The variant is unknown.
    """
    if variant and variant not in variants:
        similar = checks.did_you_mean(variant, variants)
        raise CakeError(f"config: no variant '{variant}'; there are {', '.join(variants)}{similar}")
    config.update_from_flattened_dict(dict(variants.get(variant, {})))
    return config


def check_fields(config: ConfigDict) -> None:
    """Refuses a config that lacks a field of `default`.

    Raises:
      CakeError: A field is missing. The message names the first one.
    """
    missing = sorted(set(dict(flat(default().to_dict()))) - set(dict(flat(config.to_dict()))))
    missing = [name for name in missing if ".options." not in name and not name.startswith("methods.")]
    if missing:
        raise CakeError(f"config.{missing[0]}: missing; start the config file from cake_jax.config.default()")


def _training(validation_fraction: float) -> ConfigDict:
    section = ConfigDict()
    section.model = ConfigDict({"name": "mlp", "options": ConfigDict()})  # options: fields of the Flax module
    section.epochs = 30
    section.batch_size = 256
    section.learning_rate = config_dict.placeholder(float)  # None: 0.1 for sgd, 1e-3 for adam and adamw
    section.optimizer = "sgd"  # sgd, adam or adamw
    section.schedule = "one_cycle"  # constant, one_cycle or multi_step
    section.momentum = 0.9
    section.precision = "float32"  # precision of the arithmetic: float32 or bf16; weights stay float32
    section.weight_decay = 5e-4
    section.validation_fraction = validation_fraction
    section.augment = ()  # names in cake_jax.augment.NAMES, in this order: ("crop", "flip")
    return section


def _own_defaults(method: methods.Method) -> dict[str, Any]:
    """The fields that the class of a method's settings declares, with their defaults."""
    defaults = {name: field.default for name, field in own_fields(method.settings).items()}
    return {name: vars(value) if isinstance(value, GuideSettings) else value for name, value in defaults.items()}
