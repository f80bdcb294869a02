"""Checkpoints that survive a kill at any moment."""

from collections import deque
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size, is_main_process, master_only
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmtransxnet.engine.hooks.non_finite import NonFiniteHook
from mmtransxnet.utils.atomic_write import remove_unfinished, write_safely

LAST = 'last_checkpoint'
"""File in the work directory that names the newest checkpoint."""

INTERRUPTED = 'interrupted_iter_{}.pth'
"""Checkpoint that is saved when the run is interrupted."""


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, safe against kills and full disks.

    Files are written under a temporary name and renamed, and an old checkpoint
    (including a former best one) is removed only after the new one is safe on
    disk. mmengine writes in place and removes the old file first.

    Args:
        *args: As mmengine's.
        **kwargs: As mmengine's. With ``backend_args``, checkpoints on other
            storage are as safe as that storage.
    """

    backend_args: dict[str, Any] | None
    keep_ckpt_ids: deque[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.backend_args is None and self.file_client_args is None:
            self.backend_args = dict(backend='CrashSafeBackend')

    def before_train(self, runner: Runner) -> None:
        """Remove files of interrupted writes, then do as mmengine."""
        if is_main_process():
            for path in remove_unfinished(runner.work_dir):
                runner.logger.warning(f'{path}: unfinished, removed')
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            # One more for the moment in which both exist.
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)

    def save_interrupted(self, runner: Runner) -> None:
        """Save in the middle of an epoch, after the current iteration."""
        meta = dict(epoch=runner.epoch, iter=runner.iter + 1)
        self._save(runner, INTERRUPTED.format(runner.iter + 1), meta)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict[str, Any]
    ) -> None:
        if self.max_keep_ckpts > 0:
            if step not in self.keep_ckpt_ids:
                self.keep_ckpt_ids.append(step)
            # After a kill before the oldest is removed, mmengine does that
            # when the run is resumed, because its list is too long.
            runner.message_hub.update_info(
                'keep_ckpt_ids', list(self.keep_ckpt_ids)
            )
        self._save(runner, self.filename_tmpl.format(step), meta)
        self._remove_outdated()

    def _save(self, runner: Runner, name: str, meta: dict[str, Any]) -> None:
        """Write a checkpoint, then record it as the last one."""
        for hook in runner.hooks:
            if isinstance(hook, NonFiniteHook):
                hook.settle(runner)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=dict(meta, processes=get_world_size()),
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            last = Path(runner.work_dir) / LAST
            write_safely(last, str(self.last_ckpt).encode())

    def _remove_outdated(self) -> None:
        """Remove checkpoints that are superseded by a saved one."""
        while 0 < self.max_keep_ckpts < len(self.keep_ckpt_ids):
            name = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            self._remove(self.file_backend.join_path(self.out_dir, name))
        for path in Path(self.out_dir).glob(INTERRUPTED.format('*')):
            self._remove(str(path))

    @master_only
    def _remove(self, path: str) -> None:
        if self.file_backend.isdir(path):  # a sharded checkpoint
            self.file_backend.rmtree(path)
        elif self.file_backend.isfile(path):
            self.file_backend.remove(path)

    def _save_best_checkpoint(
        self, runner: Runner, metrics: dict[str, Any]
    ) -> None:
        if not self.save_best:
            return
        before = self._best()
        # mmengine would remove the former best checkpoint before saving the
        # new.
        self._set_best(dict.fromkeys(before))
        super()._save_best_checkpoint(runner, metrics)
        after = self._best()
        self._set_best({k: after[k] or before.get(k) for k in after})
        kept = self._best().values()
        for path in filter(None, before.values()):
            if path not in kept:
                self._remove(path)
                runner.logger.info(f'The previous best {path} is removed')

    def _best(self) -> dict[str, str | None]:
        """Path of the best checkpoint by each metric."""
        if len(self.key_indicators) == 1:
            return {'': self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    def _set_best(self, paths: dict[str, str | None]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths['']
        else:
            self.best_ckpt_path_dict = paths
