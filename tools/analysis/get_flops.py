"""Print parameters and multiply-adds of the model of any config."""

import sys

from rich.console import Console
from rich.table import Table

from mmtransxnet.analysis.complexity import (
    count_macs,
    count_parameters,
)
from mmtransxnet.engine import (
    config_parser,
    load_config,
    report_user_errors,
)
from mmtransxnet.utils.build import build_model


def main() -> None:
    """Build the model without memory and count."""
    parser = config_parser(__doc__)
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        default=[224, 224],
        metavar='PIXELS',
        help='height and width of the image, or one number for both',
    )
    args = parser.parse_args()
    if len(args.shape) > 2 or min(args.shape) < 1:
        parser.error('--shape takes one or two positive numbers')
    height, width = args.shape[0], args.shape[-1]
    with report_user_errors():
        config = load_config(args.config, args.cfg_options, args.data_root)
        model = build_model(config, 'meta').eval()
        try:
            macs = count_macs(model, height, width)
        # Incompatible layers, too small a picture, or a bug: only the
        # traceback shows which.
        except Exception:
            size = f'{height} x {width}'
            print(f'error: the model does not run on {size}:', file=sys.stderr)
            raise
    table = Table(title=f'{args.config}, {height} x {width}')
    table.add_column('part')
    table.add_column('parameters', justify='right')
    for name, part in model.named_children():
        parameters = count_parameters(part)
        if parameters:
            table.add_row(name, f'{parameters / 1e6:.2f} M')
    table.add_section()
    table.add_row('all', f'{count_parameters(model) / 1e6:.2f} M')
    Console().print(table)
    Console().print(f'{macs / 1e9:.2f} GMACs')


if __name__ == '__main__':
    main()
