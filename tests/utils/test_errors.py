"""Which line is reported of an error."""

import pytest

from mmtransxnet.utils.errors import CheckpointError, UserError, line_of


def raised(function):
    with pytest.raises(UserError) as caught:
        function()
    return caught.value


def fail():
    raise CheckpointError('a.pth is empty')


def reworded():
    try:
        fail()
    except CheckpointError as error:
        raise UserError(f'--resume: {error}') from error


def in_a_registry(function):
    """As mmengine's registries raise it anew."""
    try:
        function()
    except UserError as error:
        raise type(error)(f'class `A` in b.py: {error}')  # noqa: B904


def test_line_of_an_error():
    assert line_of(raised(fail)) == 'a.pth is empty'
    assert line_of(raised(reworded)) == '--resume: a.pth is empty'


@pytest.mark.parametrize('function', [fail, reworded])
def test_words_of_a_registry_are_left_out(function):
    wrapped = raised(lambda: in_a_registry(function))
    assert line_of(wrapped) == line_of(raised(function))


def test_an_error_of_weights_is_a_value_error():
    with pytest.raises(ValueError):
        fail()
