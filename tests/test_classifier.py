"""The classifier of scikit-learn keeps scikit-learn's rules, and learns as `tfmeta adapt` does."""

import importlib
import pickle
import re
import shutil
import sys

import joblib
import keras
import numpy as np
import pytest
from PIL import Image

import tfmeta
from tfmeta.data import ImageFormat
from tfmeta.tasks import Task, learn

pytest.importorskip(
    "sklearn", minversion="1.6", reason="the classifier needs the extra tfmeta[sklearn]"
)

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import (
    check_estimators_overwrite_params,
    estimator_checks_generator,
)

from tfmeta import FewShotClassifier

PRESET = "prototypical_network_omniglot_5w1s"
RNG = np.random.default_rng(0)
# Three clouds of points in the plane.
CENTRES = np.array([[0, 0], [4, 0], [0, 4]], "float32")
X = (CENTRES[np.arange(30) % 3] + RNG.normal(size=(30, 2), scale=0.5)).astype("float32")
Y = np.array(["owl", "cat", "dog"])[np.arange(30) % 3]


@keras.saving.register_keras_serializable("tests")
class Identity(keras.Model):
    """Takes vectors of any length as their own features."""

    def call(self, x):
        return x


@pytest.fixture(scope="module")
def learner():
    return tfmeta.PrototypicalNetwork(Identity())


@pytest.fixture(scope="module")
def preset():
    return tfmeta.from_preset(PRESET)


def gradient_learner(n_way=3, **options):
    return tfmeta.MAML(tfmeta.backbones.linear(n_way, (2,)), inner_learning_rate=0.5, **options)


# === The rules of scikit-learn ===

FAILING = {
    "check_estimators_overwrite_params": "it compares hashes of the learner, and Keras writes the "
    "time into each pickle of a model: they differ from one second to the next"
}
# These fit or predict many times.
SLOW = {
    *("check_classifiers_classes", "check_classifiers_train", "check_estimators_dtypes"),
    *("check_estimators_pickle", "check_methods_subset_invariance", "check_supervised_y_2d"),
}


def checks():
    """Scikit-learn's checks of a classifier, the slow ones marked as large."""
    learner = tfmeta.PrototypicalNetwork(Identity())
    for estimator, check in estimator_checks_generator(FewShotClassifier(learner)):
        name = check.func.__name__
        marks = [pytest.mark.large] if name in SLOW else []
        if name in FAILING:
            marks.append(pytest.mark.xfail(reason=FAILING[name]))
        yield pytest.param(estimator, check, id=name, marks=marks)


@pytest.mark.parametrize(("estimator", "check"), checks())
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


def test_the_check_that_cannot_pass_with_a_learner_passes_with_its_preset(learner, tmp_path):
    learner.adapt(X, np.arange(30) % 3)
    learner.save_to_preset(tmp_path / "preset")
    classifier = FewShotClassifier(str(tmp_path / "preset"))
    check_estimators_overwrite_params("FewShotClassifier", classifier)


def test_fit_leaves_the_learner_as_it_is_and_clones_share_it():
    learner = gradient_learner()
    before = [weight.numpy() for weight in learner.weights]
    classifier = FewShotClassifier(learner, batch_norm="support")
    fitted = clone(classifier).fit(X, Y)
    assert fitted.learner is learner is clone(fitted).learner
    assert not hasattr(clone(fitted), "classes_")
    assert clone(fitted).batch_norm == "support"
    for weight, value in zip(learner.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)


def test_it_works_in_a_pipeline_and_in_searches(learner):
    pipeline = make_pipeline(StandardScaler(), FewShotClassifier(learner))
    assert cross_val_score(pipeline, X, Y, cv=2).min() > 0.9
    # Rows that are all alike are told apart by nothing: the search must prefer the other learner.
    constant = tfmeta.PrototypicalNetwork(keras.Sequential([keras.Input((2,)), Blind()]))
    search = GridSearchCV(pipeline, {"fewshotclassifier__learner": [constant, learner]}, cv=2)
    search.fit(X, Y)
    assert search.best_params_ == {"fewshotclassifier__learner": learner}
    assert search.best_estimator_.score(X, Y) > 0.9


@keras.saving.register_keras_serializable("tests")
class Blind(keras.layers.Layer):
    """Returns the same feature for all examples."""

    def call(self, x):
        return 0 * x


def test_a_preset_is_loaded_once_until_it_changes(tmp_path, monkeypatch):
    loads = []
    load = tfmeta.presets.from_preset
    monkeypatch.setattr(
        tfmeta.presets, "from_preset", lambda folder: loads.append(folder) or load(folder)
    )
    folder = tmp_path / "preset"
    gradient_learner().save_to_preset(folder)
    classifier = FewShotClassifier(folder)
    first = classifier.fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(clone(classifier).fit(X, Y).predict_proba(X), first)
    assert len(loads) == 1
    shutil.rmtree(folder)
    gradient_learner(5).save_to_preset(folder)
    assert not np.allclose(classifier.fit(X, Y).predict_proba(X), first)
    assert len(loads) == 2


@pytest.mark.parametrize("pickles", [pickle, joblib])
def test_a_pickle_predicts_the_same(pickles, tmp_path):
    classifier = FewShotClassifier(gradient_learner(inner_steps=2)).fit(X, Y)
    with (tmp_path / "classifier").open("wb") as file:
        pickles.dump(classifier, file)
    with (tmp_path / "classifier").open("rb") as file:
        again = pickles.load(file)
    np.testing.assert_allclose(again.predict_proba(X), classifier.predict_proba(X), rtol=1e-6)
    assert again.predict(X[:3]).tolist() == classifier.predict(X[:3]).tolist()


def test_a_pickle_that_keras_could_not_load_is_refused():
    class Mine(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    encoder = keras.Sequential([keras.Input((2,)), Mine()])
    classifier = FewShotClassifier(tfmeta.PrototypicalNetwork(encoder)).fit(X, Y)
    with pytest.raises(TypeError, match=r"Keras cannot find Mine by name: decorate each"):
        pickle.dumps(classifier)


# === Predictions ===


def test_probabilities_are_those_of_the_paper(learner):
    """Equation (2) of Snell et al., in float64: softmax of the negative squared distances."""
    classifier = FewShotClassifier(learner).fit(X, Y)
    assert classifier.classes_.tolist() == ["cat", "dog", "owl"]
    assert classifier.n_features_in_ == 2
    centres = np.stack([X[name == Y].astype(float).mean(axis=0) for name in classifier.classes_])
    queries = np.array([[2.0, 0.1], [1.5, 1.5]])
    expected = np.exp(-np.square(queries[:, None] - centres).sum(axis=-1))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(queries), expected, rtol=1e-4)


def test_labels_may_be_integers_in_any_order(learner):
    labels = np.where(Y == "owl", 70, np.where(Y == "cat", -3, 12))
    classifier = FewShotClassifier(learner).fit(X, labels)
    assert classifier.classes_.tolist() == [-3, 12, 70]
    assert classifier.predict(CENTRES).tolist() == [70, -3, 12]
    assert classifier.score(X, labels) > 0.9


@pytest.mark.parametrize(
    "make",
    [
        lambda: gradient_learner(5),  # More outputs than the task has classes.
        lambda: gradient_learner(
            inner_loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        ),
        lambda: tfmeta.RelationNetwork(
            tfmeta.backbones.linear(4, (2,)),
            keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, "sigmoid")]),
        ),
        lambda: tfmeta.MatchingNetwork(tfmeta.backbones.linear(4, (2,))),
    ],
)
def test_the_probabilities_of_a_row_sum_to_one(make):
    probabilities = FewShotClassifier(make()).fit(X, Y).predict_proba(X)
    assert probabilities.shape == (30, 3)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)


def test_two_classes_in_one_column_have_two_probabilities():
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    learner = gradient_learner(1, inner_loss=loss, inner_steps=5)
    two = Y != "owl"
    classifier = FewShotClassifier(learner).fit(X[two], Y[two])
    probabilities = classifier.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
    assert classifier.predict(CENTRES[1:]).tolist() == ["cat", "dog"]


# === Images ===


@pytest.fixture
def folder(tmp_path):
    """Images of two classes, as files."""
    for name in ("bars", "crosses"):
        (tmp_path / name).mkdir()
        for i in range(2):
            pixels = np.full((50, 40), 255, np.uint8)
            pixels[5:45, 18 + i : 22 + i] = 0
            if name == "crosses":
                pixels[23 + i : 27 + i, 5:35] = 0
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_files_are_read_and_learned_as_tfmeta_adapt_does(folder, preset):
    files = sorted(folder.rglob("*.png"))
    image_format = ImageFormat(28, 28, channels=1, invert=True)
    task = learn(preset, folder, example_shape=(28, 28, 1), image_format=image_format)
    _, expected = task.predict(files)
    for classifier in (
        FewShotClassifier(preset, image_format=image_format),
        FewShotClassifier(PRESET),
    ):
        classifier.fit(files, [file.parent.name for file in files])
        assert not hasattr(classifier, "n_features_in_")
        found = classifier.predict_proba([str(file) for file in files])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
        paths = np.array([str(file) for file in files])
        np.testing.assert_allclose(classifier.predict_proba(paths), found)
        classifier.task_.save(folder.parent / "task")
        assert Task.load(folder.parent / "task").class_names == ["bars", "crosses"]


def test_arrays_may_be_predicted_after_files_and_flat_rows_are_images(folder, preset):
    files = sorted(folder.rglob("*.png"))
    image_format = ImageFormat(28, 28, channels=1, invert=True)
    images = np.stack([image_format.from_bytes(f.read_bytes()) for f in files]) / 255
    y = [file.parent.name for file in files]
    classifier = FewShotClassifier(preset, image_format=image_format)
    expected = classifier.fit(files, y).predict_proba(files)
    np.testing.assert_allclose(classifier.predict_proba(images), expected, rtol=1e-4, atol=1e-6)
    flat = make_pipeline(FunctionTransformer(lambda x: x.reshape(len(x), -1)), classifier)
    assert flat.fit(images, y).score(images, y) == 1
    assert classifier.n_features_in_ == 784
    np.testing.assert_allclose(flat.predict_proba(images), expected, rtol=1e-4, atol=1e-6)


def test_a_lone_example_in_the_transductive_mode_is_warned_of(preset):
    images = RNG.random((4, 28, 28, 1))
    classifier = FewShotClassifier(preset).fit(images, [0, 1, 0, 1])
    with pytest.warns(UserWarning, match=r"this one is alone: pass all together, or use batch_no"):
        classifier.predict(images[:1])
    alone = FewShotClassifier(preset, batch_norm="support").fit(images, [0, 1, 0, 1])
    one, all_ = alone.predict_proba(images[:1]), alone.predict_proba(images)
    np.testing.assert_allclose(one, all_[:1], rtol=1e-4)
    # More rows than are predicted at once; the transductive mode still takes them together.
    many = np.repeat(images, 40, axis=0)
    np.testing.assert_allclose(alone.predict_proba(many), np.repeat(all_, 40, axis=0), rtol=1e-4)
    together = classifier.predict_proba(images)
    np.testing.assert_allclose(
        classifier.predict_proba(many), np.repeat(together, 40, axis=0), rtol=1e-3
    )


# === Refusals ===


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, np.arange(30) % 4, "This MAML tells at most 3 classes apart, but y has 4: take fewer"),
        (RNG.random((30, 3)), Y, "This MAML takes examples of the shape (2,); got (3,)."),
        (RNG.random((30, 2, 2)), Y, "This MAML takes examples of the shape (2,); got (2, 2)."),
        (["a.png"] * 30, Y, "X has files, but how images become examples is not known"),
        ("a.png", ["owl"], "X must be a list of files, or an array; got 'a.png' alone."),
        (X.astype("uint8"), Y, "X must be floats; got uint8."),
        (X, Y[:5], "inconsistent numbers of samples"),
        (X, RNG.random(30), "Unknown label type: continuous"),
        (np.full_like(X, 1e39, "float64"), Y, "too large for dtype('float32')"),
    ],
)
def test_what_a_learner_cannot_learn_is_refused(x, y, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        FewShotClassifier(gradient_learner()).fit(x, y)


@pytest.mark.parametrize(
    ("learner", "options", "message"),
    [
        (3, {}, "learner must be a learner of tfmeta, or the name, folder or address of a pre"),
        ("maml_sinusid", {}, "There is no preset 'maml_sinusid'"),
        ("maml_sinusoid", {}, "This MAML is for regression"),
        (PRESET, {"batch_norm": "mine"}, 'batch_norm must be "transductive"'),
    ],
)
def test_what_is_no_learner_of_classes_is_refused_by_fit(learner, options, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        FewShotClassifier(learner, **options).fit(X, Y)


def test_images_that_do_not_fit_are_refused(folder, preset):
    image_format = ImageFormat(28, 28, channels=1)
    images = RNG.random((4, 28, 28, 1))
    classifier = FewShotClassifier(preset, image_format=image_format)
    with pytest.raises(ValueError, match=r"from 0 to 1, but X has values .* divide pixels by 255"):
        classifier.fit(255 * images, [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"A row of X has 64 numbers, but the learner takes"):
        classifier.fit(images.reshape(4, -1)[:, :64], [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"missing.png cannot be opened"):
        classifier.fit([folder / "missing.png"], [0])
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[1, 2\]"):
        classifier.fit([folder / "missing.png"], [0, 1])
    classifier.fit(images, [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"shape \(28, 28, 1\), as in fit; got \(28, 27, 1\)"):
        classifier.predict(images[:, :, 1:])


def test_without_scikit_learn_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "tfmeta.classifier")
    monkeypatch.delitem(vars(tfmeta), "FewShotClassifier")
    with pytest.raises(
        ImportError, match=r'needs scikit-learn .*: pip install "tfmeta\[sklearn\]"'
    ):
        _ = tfmeta.FewShotClassifier
    monkeypatch.undo()
    assert importlib.import_module("tfmeta.classifier").FewShotClassifier is FewShotClassifier
