"""Write a static page that runs exported models in the browser.

python tools/web_static.py exported/ --out site/
python -m http.server --directory site --bind 127.0.0.1 8000

The folder is complete: any server of files shows it.
"""

import argparse
from pathlib import Path

from rich.console import Console

from mmtransxnet.deploy.static_page import write_site
from mmtransxnet.utils.errors import report_user_errors


def parse_args() -> argparse.Namespace:
    """Read which models, and where to write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        'exported', type=Path, nargs='+', help='folders of tools/export.py'
    )
    parser.add_argument(
        '--out', type=Path, required=True, help='folder of the page'
    )
    parser.add_argument(
        '--runtime',
        type=Path,
        help="folder with onnxruntime-web's files, instead of npm's package",
    )
    return parser.parse_args()


def main() -> None:
    """Write the page and say how to look at it."""
    args = parse_args()
    with report_user_errors():
        write_site(args.exported, args.out, args.runtime)
    size = sum(path.stat().st_size for path in args.out.rglob('*'))
    console = Console(soft_wrap=True, highlight=False)
    console.print(f'{args.out} is written ({size / 2**20:.0f} MiB). View it:')
    console.print(
        f'  python -m http.server --directory {args.out} --bind 127.0.0.1 '
        '8000',
        markup=False,
    )
    console.print('  http://127.0.0.1:8000')


if __name__ == '__main__':
    main()
