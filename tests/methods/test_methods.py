"""Every method by its name, and what those that train a generator ask of the teacher and make of its answers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from cake_jax import CakeError, data, experiment, load, losses, models, rounds, train
from cake_jax.config import default, resolve
from cake_jax.evaluation import predict
from cake_jax.methods import METHODS, adversarial, dfme, generative, generators, ideal
from cake_jax.teachers import BlackBox, QuerySettings, from_function

KEY = jax.random.key(0)
LISTENING = [name for name, method in METHODS.items() if method.training]
GENERATORS = [name for name, method in METHODS.items() if "latent_size" in method.defaults]


def small_config(method, dataset="two_moons", **fields):
    config = default()
    config.method = method
    config.dataset.name = dataset
    config.teacher.epochs = 8
    config.student.epochs = 3
    config.synthesis.num_groups = 2
    config.synthesis.num_batches, config.synthesis.batch_size, config.synthesis.num_steps = 4, 40, 3
    own = config.methods[method]
    if method in GENERATORS:
        own.num_steps, own.latent_size = 3, 8
        own.features = (8, 8, 8)
    if method in LISTENING:
        own.student.batch_size = 20
    config.update_from_flattened_dict(
        {name.replace("OWN", f"methods.{method}"): value for name, value in fields.items()}
    )
    return config


def settings_of(method, **fields):
    return resolve(small_config(method, **fields)).synthesis


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Folders of runs with a teacher, by data set."""
    folders = {}
    for dataset in ("two_moons", "digits"):
        config = small_config("noise", dataset)
        config.run.update({"synthesis": False, "student": False})
        folders[dataset] = str(tmp_path_factory.mktemp(dataset))
        experiment.run(config, folders[dataset], config_name=dataset)
    return folders


@pytest.fixture(scope="module")
def moons_teacher(teachers):
    return load(teachers["two_moons"]).teacher


@pytest.fixture(scope="module")
def whole(teachers, tmp_path_factory):
    """Folders of uninterrupted runs on the two moons, by method, each made when it is first asked for."""
    folders = {}

    def folder(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            config = small_config(name, **{"teacher.from_run": teachers["two_moons"]})
            experiment.run(config, folders[name], config_name="moons")
        return folders[name]

    return folder


NAMES = [name for name, method in METHODS.items() if method.needs != "statistics"]


@pytest.mark.parametrize("name", NAMES)
def test_every_method_runs_by_its_name(name, whole, moons_teacher):
    folder = whole(name)
    results, samples = json.loads((folder / "results.json").read_text()), load(folder).samples.select()
    assert results["method"] == name
    assert results["student"]["test_accuracy"] > 0
    assert results["samples"]["count"] == samples.num_samples == 160
    np.testing.assert_allclose(samples.logits, predict(moons_teacher, samples.x), atol=1e-4)
    if name in GENERATORS:
        assert (np.abs(samples.x) <= 3).all()
    if name not in LISTENING:
        assert results["rounds"] == []
        return
    dataset, last = data.load("two_moons"), rounds.kept_students(folder / "rounds")[4]
    accuracy = (predict(last, dataset.test_x).argmax(-1) == dataset.test_y).mean()
    assert [one["round"] for one in results["rounds"]] == [1, 2, 3, 4]
    assert results["rounds"][-1]["test_accuracy"] == pytest.approx(accuracy)
    assert (folder / "figures" / "rounds.png").stat().st_size > 1000


@pytest.mark.parametrize("name", NAMES)
def test_every_method_makes_images(name, teachers, tmp_path):
    config = small_config(name, "digits", **{"teacher.from_run": teachers["digits"], "synthesis.num_batches": 2})
    config.run.student = config.run.evaluation = False
    results = experiment.run(config, tmp_path, config_name="digits")
    samples, teacher = load(tmp_path).samples.select(), load(teachers["digits"]).teacher
    assert results["samples"]["count"] == samples.num_samples == 80
    np.testing.assert_allclose(samples.logits, predict(teacher, samples.x), atol=1e-4)
    if name in GENERATORS:
        low, high = teacher.spec.bounds
        assert ((samples.x >= low) & (samples.x <= high)).all()


@pytest.mark.parametrize("dataset", ["two_moons", "digits"])
def test_inversion_runs_by_its_name(dataset, tmp_path):
    """It alone needs a teacher with batch norm."""
    config = small_config("inversion", dataset)
    config.teacher.model.options = ConfigDict({"batch_norm": True})
    config.teacher.epochs = config.student.epochs = 1
    results = experiment.run(config, tmp_path, config_name=dataset)
    assert results["samples"]["count"] == 160
    assert results["queries"]["synthesis"] == {"forward": 160, "gradient": 480}
    assert results["student"]["test_accuracy"] > 0


def comparable(folder):
    results = json.loads((folder / "results.json").read_text())
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return (
        {name: value for name, value in results.items() if name not in ("seconds", "environment")},
        [entry["sha256"] for entry in load(folder).samples.entries.values()],
        sorted(json.dumps({**line, "seconds": 0}) for line in log),
    )


@pytest.mark.parametrize(
    ("name", "save_seconds", "lost", "started"),
    [
        ("ideal", -1.0, None, [3]),
        ("dfme", -1.0, None, [3]),
        ("generative", -1.0, None, [3]),
        ("ideal", 100.0, None, [0, 1, 2, 3]),
        ("ideal", -1.0, "batch-000001.npz", [0, 1, 2, 3]),
    ],
    ids=["ideal", "dfme", "generative", "nothing saved", "a shard lost"],
)
def test_a_stop_between_rounds_changes_nothing(
    name, save_seconds, lost, started, whole, teachers, tmp_path, monkeypatch
):
    config = small_config(name, **{"teacher.from_run": teachers["two_moons"]})
    wanted = comparable(whole(name))
    monkeypatch.setattr(rounds, "_SAVE_SECONDS", save_seconds)
    method, batches = METHODS[name], []

    def stops(*args):
        if args[-1] == 3:
            raise KeyboardInterrupt
        return method.next(*args)

    def counts(*args):
        batches.append(args[-1])
        return method.next(*args)

    monkeypatch.setitem(METHODS, name, method._replace(next=stops))
    with pytest.raises(KeyboardInterrupt):
        experiment.run(config, tmp_path, config_name="moons")
    assert load(tmp_path).samples.count == 120
    if lost:
        (tmp_path / "samples" / lost).unlink()
    monkeypatch.setitem(METHODS, name, method._replace(next=counts))
    experiment.run(config, tmp_path, config_name="moons")
    assert batches == started
    assert comparable(tmp_path) == wanted
    assert not (tmp_path / "rounds" / "training").exists()


def test_the_student_that_is_listened_to_trains_on_all_samples_so_far(teachers, tmp_path, monkeypatch):
    config = small_config("ideal", **{"teacher.from_run": teachers["two_moons"], "OWN.student.epochs": 2})
    config.run.student = config.run.evaluation = False
    seen, epochs = [], train.epochs

    def watched(key, state, module, spec, x, labels, settings, **options):
        seen.append((int(state.epoch), settings.epochs, np.array(x), np.array(labels)))
        return epochs(key, state, module, spec, x, labels, settings, **options)

    monkeypatch.setattr(train, "epochs", watched)
    experiment.run(config, tmp_path, config_name="moons")
    samples = load(tmp_path).samples.select()
    assert [epochs for *epochs, _, _ in seen] == [[0, 2], [2, 4], [4, 6], [6, 8]]
    for done, (_, _, x, labels) in enumerate(seen, start=1):
        np.testing.assert_array_equal(x, samples.x[: 40 * done])
        np.testing.assert_array_equal(labels, samples.logits[: 40 * done])


def test_rounds_that_need_one_another_are_refused_to_several_processes(teachers, tmp_path, monkeypatch):
    config = small_config("generative", **{"teacher.from_run": teachers["two_moons"]})
    teacher, settings = load(teachers["two_moons"]).teacher, resolve(config)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(CakeError, match="method: its rounds need one another"):
        rounds.make(KEY, settings, ("mlp", {}), teacher, None, tmp_path, None)


def student_of(teacher, seed=7):
    module = models.create("mlp", teacher.spec)
    state = train.init(jax.random.key(seed), module, teacher.spec, train.DISTILLATION)
    return train.as_model(module, state, teacher.spec)


def test_ideal_asks_once_for_each_image_and_never_for_a_gradient(moons_teacher):
    asked = []

    def answer(x):  # NumPy alone: a tracer would fail here
        asked.append(np.array(x))
        return np.asarray(moons_teacher(x)).argmax(-1)

    settings, student = settings_of("ideal"), student_of(moons_teacher)
    box = BlackBox(answer, moons_teacher.spec, QuerySettings("labels", budget=40, pixels=False))
    result = ideal.METHOD.next(KEY, (), box, student, settings, 0)
    np.testing.assert_array_equal(np.concatenate(asked), result.samples.x)
    assert result.queries == (40, 0)
    assert box.queries == 40
    assert set(np.unique(result.samples.logits)) <= {0.0, 110.0}
    np.testing.assert_array_equal(np.bincount(result.samples.target), [20, 20])


def test_ideal_keeps_decisions_or_scores(moons_teacher):
    student = student_of(moons_teacher)
    soft, hard = (
        ideal.METHOD.next(KEY, (), moons_teacher, student, settings_of("ideal", **{"OWN.hard_labels": hard}), 0).samples
        for hard in (False, True)
    )
    np.testing.assert_array_equal(soft.x, hard.x)
    assert set(np.unique(hard.logits)) <= {0.0, 110.0}
    np.testing.assert_array_equal(soft.logits.argmax(-1), hard.logits.argmax(-1))
    assert len(np.unique(soft.logits)) == 80


def test_ideal_s_images_are_those_of_the_lowest_loss(moons_teacher):
    """Its loss, computed anew for the images, is the one that it tells, and more steps only lower it."""
    student = student_of(moons_teacher)
    found = []
    for num_steps in (1, 5, 60):
        x, target, loss, intended = ideal.imagine(KEY, student, settings_of("ideal", **{"OWN.num_steps": num_steps}))
        log_p = np.asarray(jax.nn.log_softmax(student(x)), np.float64)
        entropy_term = 5.0 * (np.exp(log_p) * log_p).mean()
        assert float(loss) == pytest.approx(-log_p[np.arange(40), target].mean() + entropy_term, abs=1e-5)
        assert float(intended) == pytest.approx((log_p.argmax(-1) == target).mean())
        found.append(float(loss))
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0] - 0.01


def test_ideal_s_smoothness_smooths(teachers):
    """The loss that it tells has the total variation, weighed, in it; and more weight leaves less of that."""
    teacher, variations = load(teachers["digits"]).teacher, []
    for smoothness in (0.0, 1.0, 10.0):
        fields = {"OWN.num_steps": 20, "OWN.smoothness": smoothness, "OWN.moments": True}
        settings = resolve(small_config("ideal", "digits", **fields)).synthesis
        x, target, loss, _ = ideal.imagine(KEY, teacher, settings)
        log_p = np.asarray(jax.nn.log_softmax(teacher(x)), np.float64)
        variations.append(float(losses.total_variation(x).mean()))
        expected = -log_p[np.arange(40), target].mean() + 5.0 * (np.exp(log_p) * log_p).mean()
        assert float(loss) == pytest.approx(expected + smoothness * variations[-1], abs=1e-4)
    assert variations == sorted(variations, reverse=True)
    assert variations[2] < 0.9 * variations[0]


def test_ideal_makes_a_new_generator_every_round_with_one_program(moons_teacher):
    settings = settings_of("ideal")
    before = ideal.imagine._cache_size()
    first, second = (
        ideal.METHOD.next(KEY, (), moons_teacher, student_of(moons_teacher, seed), settings, batch).samples.x
        for seed, batch in ((1, 0), (2, 1))
    )
    assert not np.allclose(first, second, atol=1e-3)
    assert ideal.imagine._cache_size() <= before + 1


@pytest.mark.parametrize("disagreement", ["kl", "l1"])
def test_adversarial_steps_raise_the_disagreement(moons_teacher, disagreement):
    fields = {"OWN.num_steps": 60, "OWN.balance": 0.0, "OWN.disagreement": disagreement, "OWN.step_size": 1e-2}
    fields["OWN.spread"] = 0.0  # or the samples could not all go where it is largest
    settings = settings_of("adversarial", **fields)
    state = adversarial.init(KEY, moons_teacher.spec, settings, None)
    _, values = adversarial.contend(KEY, state, moons_teacher, student_of(moons_teacher), settings)
    assert values[-10:].mean() > 1.2 * values[:3].mean()


def test_adversarial_disagreements_are_those_of_the_papers():
    student, teacher = jnp.array([[0.0, 2.0]]), jnp.array([[1.0, 0.0]])
    p, q = 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(2.0))  # of class 0, the teacher's and the student's
    kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert float(adversarial.DISAGREEMENTS["kl"](student, teacher)[0]) == pytest.approx(kl, rel=1e-5)
    assert float(adversarial.DISAGREEMENTS["l1"](student, teacher)[0]) == 1.5


def test_balance_keeps_all_classes_among_the_samples(moons_teacher):
    shares = {}
    for balance in (0.0, 100.0):
        fields = {"OWN.num_steps": 150, "OWN.balance": balance, "OWN.step_size": 1e-2, "OWN.spread": 0.0}
        settings = settings_of("adversarial", **fields)
        state = adversarial.init(KEY, moons_teacher.spec, settings, None)
        state, _ = adversarial.contend(KEY, state, moons_teacher, student_of(moons_teacher), settings)
        x = generators.draw(KEY, settings, moons_teacher.spec, state.params)
        shares[balance] = float((moons_teacher(x).argmax(-1) == 0).mean())
    assert min(shares[0.0], 1 - shares[0.0]) < 0.1
    assert 0.25 < shares[100.0] < 0.75


def test_queries_of_a_round_are_what_the_teacher_was_asked(moons_teacher, monkeypatch):
    """Rows that the teacher sees under a gradient, and rows that it only labels, against what the round says."""
    seen = []

    def counted(x):
        jax.debug.callback(lambda x: seen.append(len(x)), x)
        return moons_teacher(x)

    labelled = []
    monkeypatch.setattr(generators, "predict", lambda model, x: labelled.append(len(x)) or predict(moons_teacher, x))
    teacher, student = from_function(counted, moons_teacher.spec), student_of(moons_teacher)
    jax.effects_barrier()
    for name, module in (("adversarial", adversarial), ("generative", generative)):
        settings = settings_of(name)
        state = module.METHOD.init(KEY, teacher.spec, settings, None)
        seen.clear(), labelled.clear()
        first = module.METHOD.next(KEY, state, teacher, student, settings, 0)
        jax.effects_barrier()
        assert (sum(labelled), sum(seen)) == first.queries == (40, 3 * 40)
        seen.clear(), labelled.clear()
        later = module.METHOD.next(KEY, first.state, teacher, student, settings, 1)
        jax.effects_barrier()
        assert (sum(labelled), sum(seen)) == later.queries == (40, 120 if name == "adversarial" else 0)


def test_dfme_asks_for_answers_alone_and_counts_them(moons_teacher):
    asked = []

    def answer(x):
        asked.append(len(x))
        return np.asarray(jax.nn.softmax(moons_teacher(x)))

    box = BlackBox(answer, moons_teacher.spec, QuerySettings("scores", budget=10**6, pixels=False))
    settings = settings_of("dfme", **{"OWN.num_directions": 2})
    state = dfme.METHOD.init(KEY, box.spec, settings, None)
    result = dfme.METHOD.next(KEY, state, box, student_of(moons_teacher), settings, 0)
    assert result.queries == (sum(asked), 0) == (3 * 3 * 40 + 40, 0)


def test_a_forward_difference_is_the_slope_in_its_direction():
    """Of a smooth function in float64, against its gradient; and its mean over many directions is that gradient."""
    size, count = 6, 20_000
    x = np.linspace(-1, 1, size)
    gradient = 3 * np.cos(3 * x) + x
    directions = np.random.default_rng(0).normal(size=(count, 1, size))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    points = np.concatenate([x[None, None], x + 1e-4 * directions])
    values = (np.sin(3 * points) + 0.5 * points**2).sum(-1)
    one = dfme.forward_differences(values[:2], directions[:1], 1e-4)
    np.testing.assert_allclose(one[0], size * (directions[0, 0] @ gradient) * directions[0, 0], rtol=2e-2)
    many = dfme.forward_differences(values, directions, 1e-4)
    np.testing.assert_allclose(many[0], gradient, atol=0.2)


def test_dfme_does_not_see_a_constant_in_the_teacher_s_logits():
    student, teacher = jnp.array([[0.0, 2.0, 1.0]]), jnp.array([[3.0, 1.0, 2.0]])
    assert float(dfme.difference(student, teacher)[0]) == 4.0  # (-1, 1, 0) and (1, -1, 0)
    log_p = jax.nn.log_softmax(teacher)
    np.testing.assert_allclose(dfme.difference(student, log_p), dfme.difference(student, teacher), rtol=1e-6)


def test_dfme_s_steps_raise_the_disagreement(moons_teacher):
    fields = {"OWN.num_steps": 60, "OWN.balance": 0.0, "OWN.step_size": 1e-2, "OWN.num_directions": 2}
    settings = settings_of("dfme", **fields)
    state = dfme.METHOD.init(KEY, moons_teacher.spec, settings, None)
    info = dfme.METHOD.next(KEY, state, moons_teacher, student_of(moons_teacher), settings, 0).info
    assert info.disagreement > 1.1 * info.disagreement_start


def test_samples_of_the_conditional_generator_reach_their_classes(moons_teacher):
    settings = settings_of("generative", **{"OWN.num_steps": 600, "OWN.step_size": 1e-2, "OWN.contrast": False})
    state = generative.METHOD.init(KEY, moons_teacher.spec, settings, None)
    result = generative.METHOD.next(KEY, state, moons_teacher, None, settings, 0)
    assert result.info.target_accuracy > 0.95
    np.testing.assert_array_equal(np.bincount(result.samples.target), [20, 20])
    again = generative.METHOD.next(KEY, result.state, moons_teacher, None, settings, 1)
    assert again.info.target_accuracy > 0.95
    assert not np.allclose(again.samples.x, result.samples.x, atol=1e-3)


def test_the_contrastive_term_pulls_a_set_s_logits_together(moons_teacher):
    gaps = {}
    for contrast in (False, True):
        fields = {"OWN.num_steps": 300, "OWN.step_size": 1e-2, "OWN.contrast": contrast, "OWN.repel": 0.0}
        settings = settings_of("generative", **fields)
        state = generative.METHOD.init(KEY, moons_teacher.spec, settings, None)
        gaps[contrast] = generative.METHOD.next(KEY, state, moons_teacher, None, settings, 0).info.logit_gap
    assert gaps[True] < 0.5 * gaps[False]


def test_repulsion_is_the_mean_over_pairs_of_different_sets():
    x = np.random.default_rng(0).normal(size=(3, 2, 4)).astype(np.float32)
    pairs = [
        np.exp(-np.square(x[s, i] - x[t, j]).sum() / 8)
        for s in range(3)
        for t in range(3)
        for i in range(2)
        for j in range(2)
        if s != t
    ]
    assert float(generative.repulsion(x)) == pytest.approx(np.mean(pairs), rel=1e-5)
    assert float(generative.repulsion(np.ones((3, 2, 4)))) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("method", "field", "value", "message"),
    [
        ("ideal", "OWN.num_steps", 0, r"methods\.ideal\.num_steps: 0 must be above 0"),
        ("ideal", "OWN.step_size", -1.0, r"methods\.ideal\.step_size: -1\.0"),
        ("ideal", "OWN.spread", -1.0, r"methods\.ideal\.spread: -1\.0 is below 0"),
        ("ideal", "OWN.blur", -1.0, r"methods\.ideal\.blur: -1\.0 is below 0"),
        ("ideal", "OWN.smoothness", -1.0, r"methods\.ideal\.smoothness: -1\.0 is below 0"),
        ("ideal", "OWN.smoothness", 1.0, r"methods\.ideal\.smoothness: it is of images"),
        ("ideal", "OWN.beta1", 1.0, r"methods\.ideal\.beta1: 1\.0 is not in \[0, 1\)"),
        ("ideal", "OWN.student.epochs", 0, r"methods\.ideal\.student\.epochs: 0 must be above 0"),
        ("ideal", "OWN.student.augment", ("flip",), r"methods\.ideal\.student\.augment: 'flip' is for images"),
        ("ideal", "OWN.features", (4, 0), r"methods\.ideal\.features: \(4, 0\)"),
        ("adversarial", "OWN.disagreement", "l2", r"methods\.adversarial\.disagreement: 'l2' is not one of kl, l1"),
        ("adversarial", "OWN.balance", -1.0, r"methods\.adversarial\.balance: -1\.0 is below 0"),
        ("dfme", "OWN.num_directions", 0, r"methods\.dfme\.num_directions: 0 must be above 0"),
        ("dfme", "OWN.epsilon", 0.0, r"methods\.dfme\.epsilon: 0\.0 must be above 0"),
        ("generative", "OWN.repel", -1.0, r"methods\.generative\.repel: -1\.0 is below 0"),
        ("generative", "synthesis.weights.entropy", 1.0, r"synthesis\.weights\.entropy: generative takes neither"),
        ("dfme", "synthesis.batch_size", 41, r"synthesis\.batch_size: 41"),
    ],
)
def test_values_that_cannot_work_are_refused_by_their_name(method, field, value, message):
    with pytest.raises(CakeError, match=message):
        settings_of(method, **{field: value})


def test_generators_of_images_need_three_numbers_of_features():
    with pytest.raises(CakeError, match=r"methods\.ideal\.features: \(4, 4\) are not 3 numbers"):
        resolve(small_config("ideal", "digits", **{"OWN.features": (4, 4)}))
