"""Batches in which one bad item must not spoil the others."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def by_halves(
    function: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    refusal: type[Exception],
) -> Iterator[tuple[Sequence[Item], Result | Exception]]:
    """Calls a function that refuses a whole batch for one item, and finds that item by halving.

    Args:
        function: takes items, at least one.
        items: a batch, at least one.
        refusal: what `function` raises if it refuses the batch.

    Yields:
        Some of the items, in order, with the function's result for them; or one item, with the
        exception that it causes alone.
    """
    try:
        yield items, function(items)
    except refusal as error:
        if len(items) == 1:
            yield items, error
            return
        half = len(items) // 2
        yield from by_halves(function, items[:half], refusal)
        yield from by_halves(function, items[half:], refusal)
