"""Orders of axes: what is only renamed, what is reshaped as it stands, what has to be moved."""

from __future__ import annotations

from itertools import permutations
from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgetl.export.litert.layout import CHANNELS_LAST, plain, reshaped, stored, transposed, usual, without

SHAPES = st.lists(st.sampled_from([1, 1, 2, 3, 4, 6]), min_size=1, max_size=5)


def test_images_stand_with_their_channels_last() -> None:
    assert stored((1, 3, 8, 9), CHANNELS_LAST) == (1, 8, 9, 3)
    assert transposed(CHANNELS_LAST, (0, 2, 3, 1)) == plain(4)
    assert without(CHANNELS_LAST, [2, 3]) == (0, 1)
    assert usual((1, 5, 1, 1), [1]) == CHANNELS_LAST
    assert usual((1, 5, 2, 1), [1, 2]) == plain(4)


def test_a_vector_a_sequence_and_a_shuffle_need_no_move_before() -> None:
    image = (1, 6, 4, 5)
    assert reshaped((1, 6, 1, 1), CHANNELS_LAST, (1, 6)) == (CHANNELS_LAST, (0, 1))
    before, after = reshaped(image, CHANNELS_LAST, (1, 6, 20))
    assert (before, stored((1, 6, 20), after)) == (CHANNELS_LAST, (1, 20, 6))
    before, after = reshaped(image, CHANNELS_LAST, (1, 2, 3, 4, 5))
    assert (before, stored((1, 2, 3, 4, 5), after)) == (CHANNELS_LAST, (1, 4, 5, 2, 3))


def test_a_flattened_image_is_moved() -> None:
    before, after = reshaped((1, 6, 4, 5), CHANNELS_LAST, (1, 120))
    assert (before, after) == (plain(4), (0, 1))


@given(shape=SHAPES, data=st.data())
def test_every_reshape_gives_what_onnx_gives(shape: list[int], data: st.DataObject) -> None:
    order = data.draw(st.sampled_from(list(permutations(range(len(shape))))))
    result = data.draw(
        SHAPES.filter(lambda other: prod(other) == prod(shape)) if prod(shape) == 1 else splits(shape)
    )
    values = np.arange(prod(shape)).reshape(shape)
    before, after = reshaped(shape, order, result)
    moved = values.transpose(before).reshape(stored(result, after))
    inverse = np.argsort(after)
    np.testing.assert_array_equal(moved.transpose(inverse), values.reshape(result))
    if before == order:
        return
    np.testing.assert_array_equal(stored(shape, before), values.transpose(before).shape)


def splits(shape: list[int]) -> st.SearchStrategy[list[int]]:
    """Shapes of as many values: the product's small factors, in some order and grouping."""
    factors = [factor for length in shape for factor in {4: [2, 2], 6: [2, 3]}.get(length, [length])]

    def grouped(cuts: tuple[list[int], list[bool]]) -> list[int]:
        order, joins = cuts
        result: list[int] = []
        for factor, join in zip(order, joins, strict=False):
            if join and result:
                result[-1] *= factor
            else:
                result.append(factor)
        return result

    return st.tuples(
        st.permutations(factors), st.lists(st.booleans(), min_size=len(factors), max_size=len(factors))
    ).map(grouped)


@given(st.data())
def test_transposition_only_renames(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    axes = list(permutations(range(len(shape))))
    order, permutation = data.draw(st.sampled_from(axes)), data.draw(st.sampled_from(axes))
    values = np.arange(prod(shape)).reshape(shape)
    kept, turned = values.transpose(order), values.transpose(permutation)
    np.testing.assert_array_equal(turned.transpose(transposed(order, permutation)), kept)
