"""The conformance harness: properties that every learner must have, ours or a user's.

Use it in a test file of your own:

    CASE = tfmeta.testing.Case("my learner", make=lambda: MyLearner(network()))

    @pytest.mark.parametrize("check", tfmeta.testing.checks(CASE))
    def test_my_learner(check):
        tfmeta.testing.run(check, CASE)
"""

from tfmeta.testing.case import Case
from tfmeta.testing.runner import CHECKS, checks, run

__all__ = ["CHECKS", "Case", "checks", "run"]
