"""The standard table of ``make bench``: what is measured and compared."""

from dataclasses import dataclass

PUBLISHED = 'reference-t'
PEER = 'convnext_tiny'

LABELS = {
    PUBLISHED: 'published formula',
    PEER: 'ConvNeXt-T',
    f'{PEER}+bf16': 'ConvNeXt-T in bf16',
    f'maskrcnn-{PEER}': 'ConvNeXt-T',
}


@dataclass(frozen=True)
class Comparison:
    """A case of ours beside others.

    Attributes:
        form: How the table names it, beside the work.
        case: The case.
        others: Cases it is compared with, keys of ``LABELS``.
    """

    form: str
    case: str
    others: tuple[str, ...] = (PEER, PUBLISHED)


@dataclass(frozen=True)
class Work:
    """A mode and a shape, measured in a process of their own.

    Attributes:
        name: As the command line has it.
        title: As the tables have it.
        mode: ``inference`` or ``training``.
        shape: Batch of images.
        comparisons: Rows of the table.
        rounds: Turns of each case in a run.
        memory: Whether peak memory is measured.
        seconds: What a run takes at ``FLOPS``, start included.
    """

    name: str
    title: str
    mode: str
    shape: str
    comparisons: tuple[Comparison, ...]
    rounds: int
    memory: bool
    seconds: float

    @property
    def cases(self) -> list[str]:
        """All cases, those of others first, without repetition."""
        ours = [comparison.case for comparison in self.comparisons]
        others = [
            case
            for comparison in self.comparisons
            for case in comparison.others
        ]
        return list(dict.fromkeys(others + ours))


_INFERENCE = (
    Comparison('folded', 'transxnet-t+folded'),
    Comparison('folded, bf16', 'transxnet-t+folded+bf16', (f'{PEER}+bf16',)),
    Comparison('not folded', 'transxnet-t'),
)

# Matrix products of the machine that Work.seconds refers to.
FLOPS = 190e9

STANDARD = (
    Work(
        'inference-224',
        'inference 8 x 224 x 224',
        mode='inference',
        shape='8x224x224',
        comparisons=_INFERENCE,
        rounds=5,
        memory=False,
        seconds=25,
    ),
    Work(
        'inference-800',
        'inference 1 x 800 x 1216',
        mode='inference',
        shape='1x800x1216',
        comparisons=_INFERENCE,
        rounds=3,
        memory=True,
        seconds=90,
    ),
    Work(
        'training-224',
        'training step 8 x 224 x 224',
        mode='training',
        shape='8x224x224',
        comparisons=(Comparison('', 'transxnet-t'),),
        rounds=5,
        memory=False,
        seconds=35,
    ),
    Work(
        'training-800',
        'training step 2 x 800 x 1216',
        mode='training',
        shape='2x800x1216',
        comparisons=(
            Comparison('', 'transxnet-t'),
            Comparison('`with_cp`', 'transxnet-t+checkpointed'),
        ),
        rounds=1,
        memory=True,
        seconds=290,
    ),
    Work(
        'maskrcnn-800',
        'Mask R-CNN, training step 2 x 800 x 1216',
        mode='training',
        shape='2x800x1216',
        comparisons=(
            Comparison(
                '',
                'maskrcnn-transxnet-t',
                (f'maskrcnn-{PEER}',),
            ),
        ),
        rounds=1,
        memory=False,
        seconds=85,
    ),
)
