"""Intervals: Wilson's against published values, the bootstrap against what must hold of any."""

from __future__ import annotations

import pytest

from fluxone.evaluate.statistics import mean, share


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [(10, 10, 0.7225, 1.0), (0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (15, 148, 0.0624, 0.1605)],
)
def test_wilson(right: int, of: int, low: float, high: float) -> None:
    """The last row is Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I."""
    figure = share([[i < right] for i in range(of)])
    assert figure.value == right / of
    assert (figure.low, figure.high) == pytest.approx((low, high), abs=1e-4)


def test_more_seeds_of_a_prompt_do_not_make_it_surer() -> None:
    once, thrice = share([[True], [False], [True]]), share([[True] * 3, [False] * 3, [True] * 3])
    assert (once.low, once.high) == (thrice.low, thrice.high)
    assert thrice.pictures == 9


def test_the_bootstrap_narrows_with_more_prompts() -> None:
    few, many = mean([[0.0], [1.0]] * 5), mean([[0.0], [1.0]] * 80)
    assert few.low < many.low < 0.5 < many.high < few.high
    assert mean([[0.3, 0.5], [0.4]]).value == pytest.approx(0.4)
    flat = mean([[2.0]] * 4)
    assert flat.low == flat.high == 2.0
