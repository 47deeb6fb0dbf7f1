"""Every family against its library's own forward: see `golden.py` for the checks, `cases.py` for the models."""

import golden
import pytest
from cases import CASES, built, own_embedding

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.towers import tower_of
from headwise.towers.tools import verify

pytestmark = pytest.mark.parametrize("name", list(CASES))


def test_identity_is_the_librarys_own_forward(name):
    tower = tower_of(built(name))
    golden.identity_is_the_own_forward(tower, own_embedding(name, golden.pictures(tower)))
    assert verify(tower) is tower


def test_zero_on_every_head_is_zeroing_its_out_projection_columns(name):
    golden.zero_is_zeroing_out_projection_columns(tower_of(built(name)))


def test_row_saving_changes_nothing(name):
    golden.row_saving_changes_nothing(tower_of(built(name)))


def test_bfloat16_agrees(name):
    golden.bfloat16_agrees(tower_of(built(name)))


def test_another_device_agrees(name):
    golden.another_device_agrees(tower_of(built(name)))


def test_masks_in_place_equal_the_engine_for_every_operator(name):
    golden.live_equals_engine(tower_of(built(name)), built(name))


def test_what_is_said_to_fold_folds(name):
    golden.edits_are_what_they_are_defined_as(tower_of(built(name)))


def test_folded_weights_equal_the_mask_in_place_and_come_off(name):
    tower = tower_of(built(name))
    assert golden.folded_equals_live_and_comes_off(tower, built(name)) >= bool(tower.foldable)


def test_gradients_equal_finite_differences(name):
    golden.gradients_equal_finite_differences(tower_of(built(name)))


def test_operators_that_are_not_defined_are_refused(name):
    tower = tower_of(built(name))
    for operator in ("cls", "cls_row", "self", "keys", "queries", "uniform"):
        for row, block in enumerate(tower.blocks):
            defined = operator in block.letters and (tower.class_token or not operator.startswith("cls"))
            mask = Mask.suppress(tower.grid, [tower.grid.head(row, 0)], operator)
            if defined and operator in tower.letters:
                tower.check_mask(mask)
            else:
                with pytest.raises(HeadwiseError, match=operator):
                    tower.check_mask(mask)
