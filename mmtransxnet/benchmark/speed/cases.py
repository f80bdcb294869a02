"""The cases of tools/benchmark/speed.py: models, forms, modes."""

from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmtransxnet import TransXNet
from mmtransxnet.benchmark.speed.detector import Detector, Pyramid
from mmtransxnet.benchmark.speed.engines import ENGINES, work_of
from mmtransxnet.models import fold
from mmtransxnet.models.reference import ReferenceTransXNet, lenient

OURS = 'transxnet'
DETECTOR = 'maskrcnn-'
REFERENCE = 'reference'
SIZES = ('t', 's', 'b')
FORMS = (
    'folded',
    'compiled',
    'channels_last',
    'checkpointed',
    'bf16',
    'fp16',
    'tf32',
    *ENGINES,
    'int8',
)
MODES = ('inference', 'training')

# Forms and 'fp32': types of the operands of matrix products.
PRECISIONS = dict(
    bf16=torch.bfloat16,
    fp16=torch.half,
    tf32=torch.float32,
    fp32=torch.float32,
)

# ImageNet-1K top-1 in percent at 224 x 224, from the papers: TransXNet
# arXiv 2310.19380, ConvNeXt 2201.03545, Swin 2103.14030, PVTv2 2106.13797,
# ResNet-50 1512.03385 (single crop).
TOP1 = {
    f'{OURS}-t': 81.6,
    f'{OURS}-s': 83.8,
    f'{OURS}-b': 84.6,
    'convnext_tiny': 82.1,
    'convnext_small': 83.1,
    'convnext_base': 83.8,
    'swin_tiny_patch4_window7_224': 81.3,
    'swin_small_patch4_window7_224': 83.0,
    'swin_base_patch4_window7_224': 83.5,
    'pvt_v2_b1': 78.7,
    'pvt_v2_b2': 82.0,
    'pvt_v2_b3': 83.2,
    'pvt_v2_b4': 83.6,
    'pvt_v2_b5': 83.8,
    'resnet50': 75.3,
}
PEERS = [name for name in TOP1 if not name.startswith(OURS)]


def allow_tf32(allowed: bool) -> None:
    """Whether GPUs compute fp32 products and convolutions in TF32."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def expect(part: str, known: Sequence[str], text: str) -> None:
    """Raise ArgumentTypeError if ``part`` of ``text`` is unknown."""
    if part not in known:
        raise ArgumentTypeError(
            f"'{part}' of '{text}': expected one of {', '.join(known)}"
        )


@dataclass(frozen=True)
class Shape:
    """A batch of images, written ``8x224x224``."""

    batch: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> 'Shape':
        """Parse ``text``; raises ArgumentTypeError if invalid."""
        numbers = [int(n) for n in text.split('x') if n.isdecimal()]
        if len(numbers) != 3 or not numbers[0] or min(numbers[1:]) < 32:
            raise ArgumentTypeError(
                f"'{text}': expected batch x height x width such as "
                '8x224x224, at least 32 pixels high and wide'
            )
        return cls(*numbers)

    def __str__(self) -> str:
        return f'{self.batch}x{self.height}x{self.width}'

    @property
    def megapixels(self) -> float:
        """Pixels of the batch, in millions."""
        return self.batch * self.height * self.width / 1e6


@dataclass(frozen=True)
class Case:
    """A model with forms, written ``transxnet-t+folded+compiled``."""

    model: str
    forms: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> 'Case':
        """Parse ``text``; raises ArgumentTypeError if invalid."""
        model, *forms = text.split('+')
        known = [f'{m}-{s}' for m in (OURS, REFERENCE) for s in SIZES]
        known += PEERS
        expect(model, known + [DETECTOR + name for name in known], text)
        for form in forms:
            expect(form, FORMS, text)
        case = cls(model, tuple(forms))
        if problem := case._problem():
            raise ArgumentTypeError(f"'{text}': {problem}")
        return case

    def _problem(self) -> str | None:
        """Why the model has no such form, if it has none."""
        if self.engine and not self.model.startswith(f'{OURS}-'):
            return f'only {OURS} is exported'
        others = set(self.forms) - {self.engine, self.precision, 'int8'}
        if self.engine and others:
            return f'{self.engine} has no {", ".join(sorted(others))}'
        if 'int8' in self.forms and self.engine != 'openvino':
            return 'int8 needs openvino'
        if self.engine == 'onnxruntime' and self.precision != 'fp32':
            return f'onnxruntime has no {self.precision}'
        if self.engine and self.precision not in ('fp32', 'bf16'):
            return f'{self.engine} has no {self.precision}'
        return None

    def __str__(self) -> str:
        return '+'.join((self.model, *self.forms))

    def does(self, mode: str) -> bool:
        """Whether this case exists in a mode."""
        only_in = {'folded': 'inference', 'checkpointed': 'training'}
        only_in |= dict.fromkeys(ENGINES, 'inference')
        return all(only_in.get(form, mode) == mode for form in self.forms)

    def eager(self) -> 'Case':
        """The same without compilation or an engine."""
        left_out = ('compiled', *ENGINES, 'int8')
        return replace(
            self, forms=tuple(f for f in self.forms if f not in left_out)
        )

    @property
    def engine(self) -> str | None:
        """A name in ``ENGINES``, None for PyTorch."""
        named = [form for form in self.forms if form in ENGINES]
        return named[0] if named else None

    @property
    def precision(self) -> str:
        """A name in ``PRECISIONS``."""
        named = [form for form in self.forms if form in PRECISIONS]
        return named[0] if named else 'fp32'

    def build(self, shape: Shape, mode: str, device: str) -> nn.Module:
        """Build the model in its form with initial weights."""
        model: Any = self._plain(shape)
        model.train(mode == 'training')
        if 'folded' in self.forms:
            model = fold(model)
        if 'channels_last' in self.forms:
            model.to(memory_format=torch.channels_last)
        model.to(device)
        if 'compiled' in self.forms:
            from torch._inductor import config as inductor

            # Has no effect in training, and none at all as an option of
            # torch.compile.
            inductor.freezing = True
            model = torch.compile(model)
        return model

    def _plain(self, shape: Shape) -> nn.Module:
        name = self.model.removeprefix(DETECTOR)
        model = self._backbone(name, shape)
        if name == self.model:
            return model
        return Detector(Pyramid(model), shape.height, shape.width)

    def _backbone(self, name: str, shape: Shape) -> nn.Module:
        kind, _, size = name.partition('-')
        if kind == REFERENCE:
            # Otherwise it could not train with one image.
            return lenient(ReferenceTransXNet(size))
        checkpointed = 'checkpointed' in self.forms
        if kind == OURS:
            return TransXNet(size, with_cp=checkpointed)
        import timm  # an extra

        options: dict[str, Any] = {}
        if kind.startswith('swin'):
            options = dict(
                img_size=(shape.height, shape.width), strict_img_size=False
            )
        model: Any = timm.create_model(name, features_only=True, **options)
        if checkpointed:
            model.set_grad_checkpointing()
        return model

    def work(
        self,
        shape: Shape,
        mode: str,
        device: str,
        graphs: Path | None = None,
    ) -> Callable:
        """Return the function to time: a forward pass or a training step.

        Args:
            shape: Batch of images.
            mode: ``inference`` or ``training``.
            device: ``cpu`` or ``cuda``.
            graphs: Folder in which the cases of a model share its exported
                graph.
        """
        if self.engine:
            size = (shape.batch, shape.height, shape.width)
            precision = 'int8' if 'int8' in self.forms else self.precision
            model = self._plain(shape).eval()
            graph = None if graphs is None else graphs / f'{self.model}.onnx'
            return work_of(model, self.engine, precision, size, graph)
        model = self.build(shape, mode, device)
        image = torch.randn(
            shape.batch, 3, shape.height, shape.width, device=device
        )
        if 'channels_last' in self.forms:
            image = image.to(memory_format=torch.channels_last)
        run = _infer if mode == 'inference' else train
        return lambda: run(model, image, self._precision(device))

    def _precision(self, device: str) -> Any:
        allow_tf32(self.precision == 'tf32')
        dtype = PRECISIONS[self.precision]
        if dtype == torch.float32:
            return nullcontext()
        return torch.autocast(device, dtype)


def _infer(model: nn.Module, image: Tensor, precision: Any) -> None:
    with torch.inference_mode(), precision:
        model(image)


def train(model: nn.Module, image: Tensor, precision: Any) -> None:
    """Run a training step within the context of a precision."""
    model.zero_grad()
    with precision:
        outs = model(image)
    sum(out.float().square().mean() for out in outs).backward()
