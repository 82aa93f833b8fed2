"""Learners by name, and what they adapt without tfmeta."""

import subprocess
import sys

import keras
import numpy as np
import pytest

import tfmeta


@pytest.mark.parametrize(
    ("name", "learner"),
    [
        ("amortized_maml", tfmeta.AmortizedMAML),
        ("anil", tfmeta.ANIL),
        ("baseline_plus_plus", tfmeta.BaselinePlusPlus),
        ("cavia", tfmeta.CAVIA),
        ("cosine_prototypical_network", tfmeta.CosinePrototypicalNetwork),
        ("fine_tuning", tfmeta.FineTuning),
        ("leo", tfmeta.LEO),
        ("logistic_head", tfmeta.LogisticHead),
        ("mahalanobis_head", tfmeta.MahalanobisHead),
        ("maml", tfmeta.MAML),
        ("maml_plus_plus", tfmeta.MAMLPlusPlus),
        ("matching_network", tfmeta.MatchingNetwork),
        ("meta_gan_maml", tfmeta.MetaGANMAML),
        ("meta_gan_relation_network", tfmeta.MetaGANRelationNetwork),
        ("meta_lstm", tfmeta.MetaLSTM),
        ("meta_sgd", tfmeta.MetaSGD),
        ("prototypical_network", tfmeta.PrototypicalNetwork),
        ("relation_network", tfmeta.RelationNetwork),
        ("reptile", tfmeta.Reptile),
        ("ridge_head", tfmeta.RidgeHead),
        ("simple_shot", tfmeta.SimpleShot),
    ],
)
def test_every_learner_has_a_name(name, learner):
    assert tfmeta.learners.get(name) is learner
    assert name in tfmeta.learners.BY_NAME


def test_no_learner_lacks_a_name():
    exported = [getattr(tfmeta, name) for name in tfmeta.__all__]
    learners = {
        thing
        for thing in exported
        if isinstance(thing, type) and issubclass(thing, tfmeta.MetaLearner)
    }
    assert set(tfmeta.learners.BY_NAME.values()) == learners - {tfmeta.MetaLearner}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("reptil", r"There is no learner 'reptil'; did you mean 'reptile'\?"),
        ("protonet", r"There is no learner 'protonet'; did you mean 'prototypical_network'\?"),
        ("meta-sgd", r"There is no learner 'meta-sgd'; did you mean 'meta_sgd'\?"),
        ("xyz", r"There is no learner 'xyz'; expected one of \['amortized_maml', 'anil'"),
        (None, "There is no learner None"),
    ],
)
def test_an_unknown_name_is_met_with_the_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        tfmeta.learners.get(name)


# === Adapted models without tfmeta ===

LOAD_ALL = """
import pathlib, sys
import keras, numpy as np
for path in pathlib.Path(sys.argv[1]).glob("*.keras"):
    x = np.load(path.with_suffix(".x.npy"))
    np.save(path.with_suffix(".y.npy"), keras.models.load_model(path).predict(x, verbose=0))
assert not any(name.startswith("tfmeta") for name in sys.modules)
"""


def network(n_outputs=3):
    layers = [keras.layers.Dense(5), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    layers += [] if n_outputs is None else [keras.layers.Dense(n_outputs)]
    return keras.Sequential([keras.Input((4,)), *layers])


@pytest.mark.large
def test_adapted_models_load_and_predict_in_a_process_without_tfmeta(tmp_path):
    keras.utils.set_random_seed(0)
    options = {"batch_norm": "support", "inner_steps": 2}
    film = tfmeta.backbones.film_conv4(3, (16, 16, 1), n_context=4, filters=3)
    learners = {
        "anil": tfmeta.ANIL(network(None), 3, inner_learning_rate=0.5, **options),
        "cavia": tfmeta.CAVIA(film, inner_learning_rate=10.0, **options),
        "meta_sgd": tfmeta.MetaSGD(network(), inner_learning_rate=0.5, **options),
        "reptile": tfmeta.Reptile(
            network(), inner_learning_rate=0.5, inner_batch_size=4, **options
        ),
    }
    rng = np.random.default_rng(0)
    expected = {}
    for name, learner in learners.items():
        shape = (16, 16, 1) if name == "cavia" else (4,)
        x, q = (rng.normal(size=(n, *shape)).astype("float32") for n in (6, 5))
        y = np.arange(6) % 3
        learner.adapt(x, y).save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.x.npy", q)
        episode = {"support_x": x[None], "support_y": y[None], "query_x": q[None]}
        expected[name] = learner(episode)[0].numpy()
        unadapted = learner({**episode, "support_y": (y[None] + 1) % 3})[0].numpy()
        assert np.abs(expected[name] - unadapted).max() > 1e-3
    # Elsewhere than in the repository, from where tfmeta could be imported.
    subprocess.run([sys.executable, "-c", LOAD_ALL, str(tmp_path)], check=True, cwd=tmp_path)
    for name, predictions in expected.items():
        loaded = np.load(tmp_path / f"{name}.y.npy")
        np.testing.assert_allclose(loaded, predictions, rtol=1e-4, atol=1e-5, err_msg=name)
