"""tfmeta: a TensorFlow/Keras model zoo for meta-learning.

`import tfmeta` imports TensorFlow, Keras and the learners, so that Keras can load their files. All
else is imported when it is first used.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmeta.version import __version__

if TYPE_CHECKING:
    from tfmeta import backbones, callbacks, data, inner_rules, learners, serving, testing
    from tfmeta.classifier import FewShotClassifier as FewShotClassifier
    from tfmeta.evaluation import Evaluation, evaluate
    from tfmeta.learners import (
        ANIL,
        CAVIA,
        LEO,
        MAML,
        AmortizedMAML,
        BaselinePlusPlus,
        CosinePrototypicalNetwork,
        FineTuning,
        LogisticHead,
        MahalanobisHead,
        MAMLPlusPlus,
        MatchingNetwork,
        MetaGANMAML,
        MetaGANRelationNetwork,
        MetaLearner,
        MetaLSTM,
        MetaSGD,
        PrototypicalNetwork,
        RelationNetwork,
        Reptile,
        RidgeHead,
        SimpleShot,
    )
    from tfmeta.presets import from_preset
    from tfmeta.threads import configure_threads
    from tfmeta.zoo import list_presets

__all__ = [
    "ANIL",
    "CAVIA",
    "LEO",
    "MAML",
    "AmortizedMAML",
    "BaselinePlusPlus",
    "CosinePrototypicalNetwork",
    "Evaluation",
    "FineTuning",
    "LogisticHead",
    "MAMLPlusPlus",
    "MahalanobisHead",
    "MatchingNetwork",
    "MetaGANMAML",
    "MetaGANRelationNetwork",
    "MetaLSTM",
    "MetaLearner",
    "MetaSGD",
    "PrototypicalNetwork",
    "RelationNetwork",
    "Reptile",
    "RidgeHead",
    "SimpleShot",
    "__version__",
    "backbones",
    "callbacks",
    "configure_threads",
    "data",
    "evaluate",
    "from_preset",
    "inner_rules",
    "learners",
    "list_presets",
    "serving",
    "testing",
]

# The modules of the public names. All other public names are learners or modules.
_MODULES = {
    "Evaluation": "tfmeta.evaluation",
    "FewShotClassifier": "tfmeta.classifier",
    "configure_threads": "tfmeta.threads",
    "evaluate": "tfmeta.evaluation",
    "from_preset": "tfmeta.presets",
    "list_presets": "tfmeta.zoo",
}
# Public names that need an extra. In `__all__`, `from tfmeta import *` would need it, too.
_WITH_EXTRAS = {"FewShotClassifier"}
_SUBMODULES = {
    *(
        "addons",
        "backbones",
        "callbacks",
        "classifier",
        "data",
        "evaluation",
        "inner_rules",
        "learners",
        "metrics",
        "ops",
        "plots",
        "presets",
    ),
    *("recipes", "rl", "serving", "testing", "training", "tuning"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562)."""
    if name in _SUBMODULES:
        return importlib.import_module(f"tfmeta.{name}")
    if name not in __all__ and name not in _WITH_EXTRAS:
        raise AttributeError(f"module 'tfmeta' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES.get(name, "tfmeta.learners")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists all public names, including those that were not imported yet."""
    return sorted({*globals(), *__all__, *_WITH_EXTRAS, *_SUBMODULES})


def _is_command_line() -> bool:
    """Tells whether this process is `tfmeta …` or `python -m tfmeta …`.

    With `-m`, Python imports this package while it looks for the module. At that time `sys.argv[0]`
    is "-m", and only `sys.orig_argv` has the module's name, before the module's own arguments. The
    installed command is a script named `tfmeta`, or `tfmeta.exe` on Windows.
    """
    program, *arguments = sys.argv or [""]
    if program == "-m":
        before = sys.orig_argv[: len(sys.orig_argv) - len(arguments)]
        return re.fullmatch(r"(-\w*m)?tfmeta", before[-1]) is not None
    return Path(program).stem == "tfmeta"


# The command line must answer `tfmeta --help` or a typo without waiting seconds for TensorFlow; its
# commands import what they use. All other processes register the learners with Keras now.
if not _is_command_line():
    importlib.import_module("tfmeta.learners")
