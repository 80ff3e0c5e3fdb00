"""The arithmetic of every figure."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.query import calls_ratio, ratio
from tests.bench.result import percentile, rounded
from tests.bench.wrap import differences


@pytest.mark.parametrize(
    ("count", "quantile", "expected"),
    [
        (1, 0.5, 1),
        (2, 0.5, 1),
        (3, 0.5, 2),
        (4, 0.5, 2),
        (20, 0.95, 19),
        (100, 0.99, 99),
        (101, 0.99, 100),
        (7, 1.0, 7),
    ],
)
def test_a_percentile_is_the_value_of_rank_ceil_q_n(count: int, quantile: float, expected: int) -> None:
    assert percentile([float(n) for n in range(count, 0, -1)], quantile) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_percentile_is_one_of_the_values_with_enough_below_it(values: list[float], quantile: float) -> None:
    found = percentile(values, quantile)
    share = Fraction(str(quantile)) * len(values)
    assert sorted(values)[math.ceil(share) - 1] == found


def test_figures_are_as_exact_as_a_bench_is() -> None:
    assert rounded(1234.5678) == 1230.0
    assert rounded(0.98765) == 0.988


def test_the_wrapper_adds_the_difference_of_the_percentiles() -> None:
    direct = [0.1] * 99 + [1.0]
    took = {"direct": direct, "up": [value + 0.2 for value in direct], "down": [value * 3 for value in direct]}
    added = {name: round(value, 6) for name, value in differences(took).items()}
    assert added == {"added_p50_ms": 0.2, "added_p99_ms": 0.2, "added_p50_ms_down": 0.2, "added_p99_ms_down": 0.2}


def test_ratios_are_medians_over_the_rounds() -> None:
    ours, theirs = [[2.0, 2.0], [9.0, 9.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
    assert ratio(ours, theirs, 0.5) == 2.0
    assert calls_ratio(ours, theirs) == 0.5
