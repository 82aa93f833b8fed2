"""The tiers of the tests: what runs by default, by date and within a time."""

import itertools
import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parent.parent
N = 30
FILES = {
    f"test_{name}": f"""
        import pytest

        def test_small():
            pass

        @pytest.mark.large
        @pytest.mark.parametrize("i", range({N}))
        def test_large(i):
            pass
    """
    for name in "abcd"
}
SMALL = [f"{name}.py::test_small" for name in FILES]


@pytest.fixture
def run(pytester: pytest.Pytester):
    """Runs made-up tests with this repository's settings; the names of those that ran, in order."""
    pytester.makeconftest(ROOT.joinpath("tests", "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyprojecttoml(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))

    def run(*options: object) -> list[str]:
        result = pytester.runpytest("-v", ".", *map(str, options))
        assert result.ret == pytest.ExitCode.OK
        return re.findall(r"^(\S+::\S+) PASSED", result.stdout.str(), re.MULTILINE)

    pytester.makepyfile(**FILES)
    return run


def test_large_tests_run_only_if_asked_for(run):
    assert run() == SMALL
    assert len(run("-m", "large")) == 4 * N
    assert len(run("-m", "")) == 4 * N + 4


def test_in_three_days_each_large_test_has_its_turn_once(run):
    days = [run("-m", "large", "--large-day", day) for day in (20_000, 20_001, 20_002)]
    assert sorted(itertools.chain(*days)) == sorted(run("-m", "large"))
    assert all(len(day) > N / 2 for day in days)
    assert set(SMALL) <= set(run("-m", "", "--large-day", 7))


def test_the_same_group_begins_with_another_file_on_other_days(run):
    days = [run("-m", "large", "--large-day", day) for day in range(0, 15, 3)]
    assert len({day[0] for day in days}) > 1
    assert {frozenset(day) for day in days} == {frozenset(days[0])}
    # The tests of a file stay together, and share its fixtures.
    files = [name.partition("::")[0] for name in days[0]]
    assert sum(a != b for a, b in itertools.pairwise(files)) == 3


def test_when_time_is_over_the_rest_is_skipped_and_counted(run, pytester):
    assert run("-m", "large", "--seconds", 0) == []
    result = pytester.runpytest("-m", "large", "--seconds", "0")
    result.stdout.fnmatch_lines([f"0 tests ran; {4 * N} did not, because time ran out."])
    result = pytester.runpytest("-m", "large", "--seconds", "100")
    result.stdout.fnmatch_lines([f"{4 * N} tests ran; 0 did not, because time ran out."])


def test_a_failure_within_the_time_fails(pytester, run):
    pytester.makepyfile(test_wrong="def test_wrong(): assert False")
    assert pytester.runpytest("--seconds", "100").ret == pytest.ExitCode.TESTS_FAILED
    assert pytester.runpytest("-m", "large", "--seconds", "100").ret == pytest.ExitCode.OK


@pytest.mark.large
@pytest.mark.parametrize(
    "options",
    [[], pytest.param(["-n", "2", "--dist", "worksteal"], marks=pytest.mark.large)],
)
def test_no_test_begins_after_its_time(pytester, run, options):
    pytester.makepyfile(
        **dict.fromkeys(FILES, ""),
        test_slow="""
        import time
        import pytest

        @pytest.mark.parametrize("i", range(6))
        def test_slow(i):
            time.sleep(2)
    """,
    )
    result = pytester.runpytest("--seconds", "3", *options)
    assert result.ret == pytest.ExitCode.OK
    outcomes = result.parseoutcomes()
    assert 0 < outcomes["skipped"] < 6
    assert outcomes["passed"] + outcomes["skipped"] == 6
