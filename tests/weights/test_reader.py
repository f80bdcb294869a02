"""Reading checkpoint files."""

import torch
from mmengine.logging.history_buffer import HistoryBuffer

from mmtransxnet.weights.reader import read_checkpoint


def training_checkpoint(path):
    """A file as the Runner writes it, with its history of losses."""
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    torch.save({'state_dict': {}, 'message_hub': {'loss': history}}, path)
    return str(path)


def test_training_state_is_read(tmp_path):
    content = read_checkpoint(training_checkpoint(tmp_path / 'epoch_1.pth'))
    assert content['message_hub']['loss'].mean() == 0.375


def test_training_state_is_read_after_mmengines_loader(tmp_path):
    """On leaving, the loader forbids what had been allowed before."""
    path = training_checkpoint(tmp_path / 'epoch_1.pth')
    with torch.serialization.safe_globals([HistoryBuffer]):
        pass
    assert read_checkpoint(path)['message_hub']['loss'].mean() == 0.375
