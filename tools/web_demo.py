"""Show what models predict, in a browser.

    python tools/web_demo.py exported/
    python tools/web_demo.py CONFIG CHECKPOINT

Several models can be named; the page lets choose. It needs
pip install 'mmtransxnet[web]'. See docs/web.md.
"""

import argparse

# Before torch, for the choice in mmtransxnet.utils.waiting_threads.
import mmtransxnet  # noqa: F401

# isort: split
from mmtransxnet.engine import UserError, report_user_errors
from mmtransxnet.utils.allocator import keep_freed_memory
from mmtransxnet.web.folder import own_folder
from mmtransxnet.web.models import open_models
from mmtransxnet.web.pictures import find_examples


def parse_args() -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'models',
        nargs='+',
        help='exported folders; configs, each followed by its checkpoint',
    )
    parser.add_argument('--host', default='127.0.0.1', help='%(default)s')
    parser.add_argument(
        '--port', type=int, default=7860, help='%(default)s; 0: any free one'
    )
    parser.add_argument(
        '--examples',
        nargs='+',
        default=[],
        help='pictures to choose from, or folders of them; photographs of '
        'scikit-image by default',
    )
    parser.add_argument('--device', help='for checkpoints: cpu, cuda:0, ...')
    parser.add_argument(
        '--engine',
        choices=['openvino', 'onnxruntime'],
        help='for exported folders',
    )
    limits = {
        '--queue': (int, 16, 'requests that wait; more are refused'),
        '--max-mib': (float, 20.0, 'maximum size of a file in MiB'),
        '--max-megapixels': (float, 16.0, 'maximum size of a picture'),
        '--field-size': (
            int,
            512,
            'side in pixels of the picture for the receptive field',
        ),
    }
    for flag, (kind, default, text) in limits.items():
        parser.add_argument(
            flag, type=kind, default=default, help=f'{text} (%(default)s)'
        )
    args = parser.parse_args()
    for flag in limits:
        if not getattr(args, flag[2:].replace('-', '_')) > 0:
            parser.error(f'{flag} must be positive')
    return args


def serve(args: argparse.Namespace) -> None:
    """Open the models and serve the page.

    Raises:
        UserError: A model, a picture or the port cannot be used.
    """
    keep_freed_memory()
    with own_folder() as folder:
        try:
            from mmtransxnet.web.page import Settings, build_page
            from mmtransxnet.web.server import create_app
            from mmtransxnet.web.server import serve as listen
        except ImportError as error:
            raise UserError(
                f"{error}: pip install 'mmtransxnet[web]'"
            ) from error
        models = open_models(args.models, args.device, args.engine)
        settings = Settings(
            args.queue, int(args.max_megapixels * 1e6), args.field_size
        )
        examples = find_examples(args.examples, folder / 'examples')
        page = build_page(models, examples, settings)
        app = create_app(page, int(args.max_mib * 2**20))
        listen(app, args.host, args.port)


def main() -> None:
    """Show the page until it is interrupted."""
    args = parse_args()
    with report_user_errors():
        serve(args)


if __name__ == '__main__':
    main()
