"""The page: its components and what they do."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio import processing_utils
from PIL import Image

from mmtransxnet.analysis.cam import class_activation
from mmtransxnet.analysis.drawing import draw_activations, draw_fields
from mmtransxnet.analysis.erf import model_fields
from mmtransxnet.analysis.observation import run_stages
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import shorten
from mmtransxnet.web.enlarge import enlarged
from mmtransxnet.web.legend import legend, problem
from mmtransxnet.web.models import PageModel, Prediction, as_dict
from mmtransxnet.web.pictures import Upload, check_upload

_SCORE = 0.3
"""Minimum score of objects at first."""

_SHOWN_SIDE = 2048
"""Longer side of drawings in pixels. The browser shows them smaller, and a
PNG of all pixels would take seconds each time the slider moves."""

_KEPT_SECONDS = 3600
"""How long files and predictions of a session are kept."""

_HEIGHT = 340
"""Height of the pictures in pixels of the page."""

SESSIONS = 20
"""Sessions whose last prediction is kept in memory."""

_UPLOAD = 'send the picture as a file: others of the system are not read'
_NO_ANALYSIS = (
    'An exported model has no class activation and no receptive field: both '
    'need gradients. Start the page with the config and the checkpoint.'
)
_ANALYSIS = (
    'For the picture above: the class activation in two stages of the model '
    '(the last ones; for a detection, those that suit its size), the '
    'receptive field of all. Each takes seconds.'
)


@dataclass(frozen=True)
class Settings:
    """Settings of the page.

    Attributes:
        queue: Maximum number of requests that wait; more are refused.
        max_pixels: Maximum width x height of a picture.
        field_size: Side of the pictures in pixels for the receptive field.
    """

    queue: int = 16
    max_pixels: int = 16_000_000
    field_size: int = 512


class Actions:
    """What the page computes.

    Args:
        models: The models by name.
        settings: Settings of the page.
    """

    def __init__(
        self, models: Mapping[str, PageModel], settings: Settings
    ) -> None:
        self._models = models
        self._settings = settings
        # Models are not for several threads, and torch would start its own
        # threads for each that calls it.
        self._thread = ThreadPoolExecutor(1, 'model')

    def predict(
        self, picture: Upload | None, model: str, score: float = _SCORE
    ) -> tuple[Prediction | None, Image.Image | None, str, Any]:
        """Predict a picture and draw the result.

        Args:
            picture: The file of the picture.
            model: Name of the model.
            score: Minimum score of objects, 0 to 1.

        Returns:
            The prediction, then what :meth:`show` returns. If it fails, the
            description and the data say why.
        """
        if picture is None:
            return None, None, '', None
        try:
            found = self._compute(self._predict, picture, model)
        except UserError as error:
            chosen = self._models[model]
            data = as_dict(chosen, failed=(picture.name, str(error)))
            return None, None, problem(str(error)), data
        return found, *self.show(found, score)

    def _predict(self, picture: Upload, model: str) -> Prediction:
        check_upload(picture, self._settings.max_pixels)
        return self._models[model].predict(picture)

    def show(
        self, found: Prediction | None, score: float
    ) -> tuple[Image.Image | None, str, Any]:
        """Draw a prediction.

        Args:
            found: The prediction.
            score: Minimum score of objects, 0 to 1.

        Returns:
            The drawing, a description in HTML, and the data of ``--json``.
        """
        if found is None:
            return None, '', None
        image = enlarged(found).draw(score)
        image.thumbnail((_SHOWN_SIDE, _SHOWN_SIDE))
        return image, legend(found, score), found.to_dict(score)

    def activation(self, found: Prediction | None) -> Image.Image:
        """Draw the class activation of a prediction.

        Raises:
            gr.Error: There is none; the page shows the message.
        """
        return self._analyse(found, _draw_activation)

    def fields(self, found: Prediction | None) -> Image.Image:
        """Draw the receptive field of each stage for a picture."""
        size = self._settings.field_size
        return self._analyse(
            found, lambda one, file: _draw_fields(one, file, size)
        )

    def _analyse(
        self,
        found: Prediction | None,
        draw: Callable[[Prediction, Path], None],
    ) -> Image.Image:
        if found is None:
            raise _shown_error('choose a picture first')
        if found.model.inferencer is None:
            raise _shown_error(_NO_ANALYSIS)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / 'drawing.png'
            try:
                self._compute(draw, found, file)
            except UserError as error:
                raise _shown_error(str(error)) from error
            with Image.open(file) as image:
                return image.convert('RGB')

    def _compute(self, function: Callable, *arguments: Any) -> Any:
        """Run a function in the thread of the models.

        Raises:
            UserError: It fails.
        """
        try:
            return self._thread.submit(function, *arguments).result()
        except UserError:
            raise
        # torch and the libraries raise various errors for unusual pictures.
        except Exception as error:
            reason = shorten(str(error), 300)
            raise UserError(
                f'the model fails: {type(error).__name__}: {reason}'
            ) from error

    def has(self, model: Any) -> bool:
        """Whether there is a model of this name."""
        return isinstance(model, str) and model in self._models

    def is_trained(self, model: str) -> bool:
        """Whether the analyses are possible."""
        return self._models[model].inferencer is not None

    def is_detector(self, model: str) -> bool:
        """Whether the score slider has an effect."""
        return self._models[model].task == 'detection'


def _shown_error(message: str) -> gr.Error:
    """An error whose message the page shows until it is closed."""
    return gr.Error(escape(message), duration=None, print_exception=False)


def _draw_activation(found: Prediction, file: Path) -> None:
    inferencer = found.model.inferencer
    assert inferencer is not None
    image = np.ascontiguousarray(found.pixels[..., ::-1])
    data = inferencer.prepare(image)
    first = class_activation(inferencer.model, data)
    activations = [first]
    last = run_stages(inferencer.model)[-1]
    # A stage alone may be too coarse, or know too little.
    if last > 0:
        other = first.stage + 1 if first.stage < last else first.stage - 1
        second = class_activation(inferencer.model, data, stage=other)
        activations = sorted((first, second), key=lambda found: found.stage)
    draw_activations(image, activations, file, inferencer.classes)


def _draw_fields(found: Prediction, file: Path, size: int) -> None:
    inferencer = found.model.inferencer
    assert inferencer is not None
    image = np.ascontiguousarray(found.pixels[..., ::-1])
    fields = model_fields(inferencer.model, [image], size)
    draw_fields({found.model.name: fields}, file)


def build_page(
    models: Mapping[str, PageModel],
    examples: Sequence[str | Path] = (),
    settings: Settings | None = None,
) -> gr.Blocks:
    """Build the page.

    Args:
        models: The models by name; the first is chosen.
        examples: Pictures to choose from, in the folder for temporary files.
        settings: Settings of the page.
    """
    settings = settings or Settings()
    actions = Actions(models, settings)
    with gr.Blocks(
        title='TransXNet',
        analytics_enabled=False,
        delete_cache=(600, _KEPT_SECONDS),
    ) as page:
        parts = _lay_out(models, examples, actions)
        _connect(parts, actions)
    _refuse_addresses()
    # Only launch() would set it; without, gradio takes any file of the system
    # that a request names for one that was uploaded.
    page.has_launched = True
    # A request that waits holds a picture in the folder of uploads only.
    page.queue(
        api_open=False,
        max_size=settings.queue,
        default_concurrency_limit=1,
    )
    page.state_session_capacity = SESSIONS
    return page


@dataclass(frozen=True)
class _Parts:
    """Components of the page."""

    found: Any
    picture: Any
    model: Any
    drawing: Any
    score: Any
    text: Any
    data: Any
    note: Any
    buttons: tuple[Any, Any]
    analyses: tuple[Any, Any]


def _lay_out(
    models: Mapping[str, PageModel],
    examples: Sequence[str | Path],
    actions: Actions,
) -> _Parts:
    choices = list(models)
    trained = actions.is_trained(choices[0])
    found = gr.State(None, time_to_live=_KEPT_SECONDS)
    gr.Markdown('# TransXNet')
    with gr.Row():
        with gr.Column(min_width=280):
            picture = gr.Image(
                sources=['upload', 'clipboard'],
                label='Picture',
                height=_HEIGHT,
                buttons=[],
                elem_classes='shown',
            )
            model = gr.Dropdown(
                choices,
                value=choices[0],
                label='Model',
                visible=len(choices) > 1,
            )
            if examples:
                gr.Examples(
                    [[str(path)] for path in examples],
                    [picture],
                    examples_per_page=len(examples),
                    api_visibility='private',
                )
        with gr.Column(min_width=280):
            drawing = gr.Image(
                label='Prediction',
                height=_HEIGHT,
                format='png',
                interactive=False,
                buttons=['download', 'fullscreen'],
                elem_classes='shown',
            )
            score = gr.Slider(
                0,
                1,
                _SCORE,
                step=0.01,
                label='Minimum score of objects',
                visible=actions.is_detector(choices[0]),
                buttons=[],
            )
            text = gr.HTML(label='Text')
    # Closed, so that the keyboard need not pass its many buttons.
    with gr.Accordion('Result as JSON', open=False):
        data = gr.JSON(label='JSON', show_label=False, max_height=_HEIGHT)
    gr.Markdown('## What the model sees')
    note = gr.Markdown(_ANALYSIS if trained else _NO_ANALYSIS)
    names = ('Class activation', 'Receptive field')
    with gr.Row():
        buttons = [gr.Button(name, interactive=trained) for name in names]
    analyses = [
        gr.Image(
            label=name,
            show_label=False,
            format='png',
            interactive=False,
            visible=False,
            buttons=['download', 'fullscreen'],
            elem_classes='analysis',
        )
        for name in names
    ]
    return _Parts(
        found, picture, model, drawing, score, text, data, note,
        (buttons[0], buttons[1]), (analyses[0], analyses[1]),
    )  # fmt: skip


def _connect(parts: _Parts, actions: Actions) -> None:
    shown = [parts.drawing, parts.text, parts.data]
    parts.model.change(
        lambda model: _for_model(actions, model),
        parts.model,
        [parts.score, parts.note, *parts.buttons],
        api_visibility='private',
    )
    predicted = gr.on(
        [parts.picture.change, parts.model.change],
        partial(_called, actions, parts.picture.GRADIO_CACHE),
        [parts.picture, parts.model, parts.score],
        [parts.found, *shown],
        concurrency_id='model',
        # Gradio would decode the picture before any check.
        preprocess=False,
        show_progress_on=[parts.drawing],
        api_name='predict',
    )
    # What belongs to an earlier picture goes.
    predicted.then(
        lambda: [gr.Image(visible=False) for _ in parts.analyses],
        None,
        list(parts.analyses),
        api_visibility='private',
    )
    parts.score.change(
        actions.show,
        [parts.found, parts.score],
        shown,
        trigger_mode='always_last',
        concurrency_id='draw',
        show_progress='hidden',
        api_visibility='private',
    )
    for button, analyse, output in zip(
        parts.buttons,
        (actions.activation, actions.fields),
        parts.analyses,
        strict=True,
    ):
        button.click(
            _made_visible(analyse),
            parts.found,
            output,
            concurrency_id='model',
            api_visibility='private',
        )


def _called(
    actions: Actions, folder: str, picture: Any, model: Any, score: Any
) -> tuple[Any, ...]:
    """Predict with values that were not checked.

    Raises:
        gr.Error: A value is wrong.
    """
    upload = _as_upload(picture, folder)
    if not actions.has(model):
        raise _shown_error('there is no such model')
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        raise _shown_error('the minimum score is no number from 0 to 1')
    return actions.predict(upload, model, score)


def _made_visible(analyse: Callable[[Any], Image.Image]) -> Callable:
    """An analysis whose drawing appears once it is there."""

    def show(found: Prediction | None) -> Any:
        return gr.Image(analyse(found), visible=True)

    return show


def _for_model(actions: Actions, model: str) -> tuple[Any, ...]:
    """What changes when another model is chosen."""
    trained = actions.is_trained(model)
    return (
        gr.update(visible=actions.is_detector(model)),
        _ANALYSIS if trained else _NO_ANALYSIS,
        gr.update(interactive=trained),
        gr.update(interactive=trained),
    )


def _as_upload(payload: Any, folder: str) -> Upload | None:
    """The picture's file, neither opened nor converted.

    Args:
        payload: What the page or a call sends.
        folder: Where gradio stores what is uploaded.

    Raises:
        gr.Error: It is no file in this folder.
    """
    if payload is None:
        return None
    path = payload.get('path') if isinstance(payload, dict) else None
    if not path or not Path(path).resolve().is_relative_to(
        Path(folder).resolve()
    ):
        raise _shown_error(_UPLOAD)
    name = payload.get('orig_name') or Path(path).name
    return Upload(path, Path(name).name)


async def _refuse_address(*_: Any, **__: Any) -> str:
    raise _shown_error(_UPLOAD)


def _refuse_addresses() -> None:
    """Keep gradio from downloading what a request names by its address.

    It looks for files and addresses in the values of all components.
    """
    # Not an attribute of the components: gradio makes new ones for a session.
    processing_utils.async_ssrf_protected_download = _refuse_address
