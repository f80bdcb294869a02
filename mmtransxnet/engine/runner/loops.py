"""Training loops that continue exactly where an interrupted run stopped.

All random numbers of a run are a function of its seed and its position: each
sample is loaded and augmented from its own random state (index of the batch,
position in it), and so is each training step. So no random state has to be
saved, and the number of worker processes does not matter. A run of mmengine's
own loops depends on all random numbers since its start.
"""

from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_rank
from mmengine.registry import LOOPS
from mmengine.runner import (
    BaseLoop,
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
)
from torch.utils.data import DataLoader, Dataset

from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.random_streams import SAMPLE, STEP, seed_everything

_EPOCH_LENGTH = 'epoch_length'
"""Entry of the message hub: the number of batches of an epoch."""


class NumberedBatches:
    """A batch sampler that yields samples with their batch and position.

    Args:
        batches: The batch sampler itself.
        seed: Seed of the run.

    Attributes:
        entropy: Seed and rank, from which random states are derived.
        first: Index of the first batch of the next iteration over it.
        skip: Number of its batches that an interrupted run has already used.
    """

    def __init__(self, batches: Any, seed: int) -> None:
        self.batches = batches
        self.sampler = batches.sampler
        self.entropy = (seed, get_rank())
        self.first = 0
        self.skip = 0

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple[tuple[int, ...], int]]]:
        skip, self.skip = self.skip, 0
        for number, batch in enumerate(self.batches):
            if number >= skip:
                drawn = (*self.entropy, self.first + number)
                yield [((*drawn, i), index) for i, index in enumerate(batch)]


class SeededDataset(Dataset):
    """A data set whose samples are loaded from separate random states.

    Its attributes are those of the wrapped data set.

    Args:
        dataset: The data set.
    """

    def __init__(self, dataset: Any) -> None:
        vars(self)['dataset'] = dataset

    def __getattr__(self, name: str) -> Any:
        # During unpickling, the wrapped data set is not set yet.
        if 'dataset' not in vars(self):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, sample: tuple[tuple[int, ...], int]) -> Any:
        entropy, index = sample
        seed_everything(SAMPLE, *entropy)
        return self.dataset[index]


def _number_batches(loader: DataLoader, seed: int) -> None:
    """Make an unused loader number its batches and seed its samples."""
    if loader.batch_sampler is None:
        raise UserError(
            'train_dataloader.batch_size=None: runs resume from batches only'
        )
    # A loader does not allow replacing its parts, because of running
    # iterators; there are none.
    parts = vars(loader)
    parts['dataset'] = SeededDataset(loader.dataset)
    parts['batch_sampler'] = NumberedBatches(loader.batch_sampler, seed)


class Resumable:
    """The shared part of both loops.

    Args:
        runner: The Runner.
        dataloader: A loader or its config.
        *args: As mmengine's.
        **kwargs: As mmengine's.
    """

    runner: Any
    dataloader: Any
    val_begin: int
    val_interval: int
    _epoch: int
    _iter: int

    def __init__(
        self, runner: Any, dataloader: Any, *args: Any, **kwargs: Any
    ) -> None:
        # Before mmengine's loops get the loader: IterBasedTrainLoop of 0.10.7
        # starts reading at once, and persistent workers keep the parts they
        # started with.
        BaseLoop.__init__(cast(BaseLoop, self), runner, dataloader)
        _number_batches(self.dataloader, runner.seed)
        super().__init__(runner, self.dataloader, *args, **kwargs)  # type: ignore[call-arg]

    def batch_of(self, iteration: int) -> Any:
        """Reload the batch of an iteration.

        Afterwards, the random state is that at the start of the iteration's
        step.

        Args:
            iteration: Number of the iteration from 0.
        """
        self._iter = iteration
        self.runner.message_hub.update_info('iter', iteration)
        # Hooks shuffle, and may change the data set at some epoch.
        self.runner.call_hook('before_train_epoch')
        batch = next(iter(self._batches()))
        self._seed_step()
        return batch

    def _batches(self) -> Iterable[Any]:
        """The batches of the loader from the current iteration on."""
        raise NotImplementedError

    def _seed_step(self) -> None:
        seed_everything(
            STEP, *self.dataloader.batch_sampler.entropy, self._iter
        )

    def run_iter(self, *args: Any) -> None:
        """Train a step from its own random state."""
        self._seed_step()
        super().run_iter(*args)  # type: ignore[misc]

    def _validate_if_interrupted(self) -> None:
        """Run the validation that a killed run did not reach.

        Checkpoints are saved before the validation of the same iteration.
        """
        if self._iter and self._is_validation_due():
            self.runner.logger.info('Running the interrupted validation first')
            self.runner.val_loop.run()

    def _is_validation_due(self) -> bool:
        raise NotImplementedError

    def _is_due_after(self, count: int, last: int) -> bool:
        """Whether to validate after a number of epochs or iterations."""
        return (
            self.runner.val_loop is not None
            and count >= self.val_begin
            and (count % self.val_interval == 0 or count == last)
        )

    def _start_at(self, batch: int, skip: int) -> None:
        """Let the loader start its next iteration at a batch."""
        self.dataloader.batch_sampler.first = batch - skip
        self.dataloader.batch_sampler.skip = skip


@LOOPS.register_module()
class ResumableEpochLoop(Resumable, EpochBasedTrainLoop):
    """mmengine's ``EpochBasedTrainLoop`` that resumes exactly.

    Also in the middle of an epoch and in an interrupted validation.
    """

    def run(self) -> torch.nn.Module:
        """Train."""
        self.runner.call_hook('before_train')
        self._decide_current_val_interval()
        self._find_position()
        self._validate_if_interrupted()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._decide_current_val_interval()
            if self._is_validation_due():
                self.runner.val_loop.run()
        self.runner.call_hook('after_train')
        return self.runner.model

    def _find_position(self) -> None:
        """Find the position in the epoch with this number of processes."""
        hub, length = self.runner.message_hub, len(self.dataloader)
        before = hub.runtime_info.get(_EPOCH_LENGTH, length)
        if before != length:
            if self._iter != self._epoch * before:
                raise UserError(
                    f'the checkpoint is from the middle of an epoch of '
                    f'{before} batches, which now has {length}: resume with '
                    'the same batch size and number of processes, or from '
                    'the checkpoint of a complete epoch'
                )
            self._iter = self._epoch * length
        hub.update_info(_EPOCH_LENGTH, length)

    def run_epoch(self) -> None:
        """Train an epoch, or the remaining part of an interrupted one."""
        done = self._iter - self._epoch * len(self.dataloader)
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for number, data_batch in enumerate(self._batches(), start=done):
            self.run_iter(number, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def batch_of(self, iteration: int) -> Any:
        """Reload the batch of an iteration."""
        self._epoch = iteration // len(self.dataloader)
        return super().batch_of(iteration)

    def _batches(self) -> Iterable[Any]:
        done = self._iter - self._epoch * len(self.dataloader)
        self._start_at(self._iter, done)
        return self.dataloader

    def _is_validation_due(self) -> bool:
        complete = self._iter == self._epoch * len(self.dataloader)
        return complete and self._is_due_after(self._epoch, self._max_epochs)


@LOOPS.register_module()
class ResumableIterLoop(Resumable, IterBasedTrainLoop):
    """mmengine's ``IterBasedTrainLoop`` that resumes exactly.

    Args:
        *args: As mmengine's.
        **kwargs: As mmengine's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # mmengine 0.10.7 has already started to read, which advances an
        # endless sampler.
        del self.dataloader_iterator
        sampler: Any = self.dataloader.sampler
        if isinstance(sampler, InfiniteSampler):
            sampler.indices = sampler._indices_of_rank()

    def run(self) -> torch.nn.Module:
        """Train."""
        self.runner.call_hook('before_train')
        # For hooks, the entire training is one epoch.
        self.runner.call_hook('before_train_epoch')
        self._decide_current_val_interval()
        self._validate_if_interrupted()
        self.dataloader_iterator = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            if self._is_validation_due():
                self.runner.val_loop.run()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def _batches(self) -> Iterator[Any]:
        # An endless iterator.
        sampler = self.dataloader.batch_sampler.sampler
        epoch, skip = 0, self._iter
        if not isinstance(sampler, InfiniteSampler):
            epoch, skip = divmod(self._iter, len(self.dataloader))
        while True:
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)
            self._start_at(self._iter, skip)
            yield from self.dataloader
            epoch, skip = epoch + 1, 0

    def _is_validation_due(self) -> bool:
        return self._is_due_after(self._iter, self._max_iters)
