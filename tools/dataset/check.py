"""Say in seconds whether the data of a config is laid out as it needs."""

import sys

from rich.console import Console
from rich.table import Table

from mmtransxnet.engine import (
    config_parser,
    inspect_layout,
    load_config,
    report_user_errors,
)


def main() -> None:
    """Print a table of the splits; exit with 1 if something is missing."""
    args = config_parser(__doc__).parse_args()
    with report_user_errors():
        config = load_config(args.config, args.cfg_options, args.data_root)
        layouts = inspect_layout(config, ['train', 'val', 'test'])
    table = Table(title=args.config)
    for name in ('split', 'folder', 'pictures', 'published', 'state'):
        table.add_column(name, overflow='fold')
    for one in layouts:
        told = 'see below' if one.problems or one.notes else 'good'
        table.add_row(
            one.split,
            str(one.folder),
            f'{one.images:,}',
            f'{one.expected:,}' if one.expected else '',
            told,
        )
    Console().print(table)
    complaints = [c for one in layouts for c in (*one.problems, *one.notes)]
    for complaint in dict.fromkeys(complaints):
        print(complaint)
    if complaints:
        sys.exit(f'error: {config.get("data_remedy", "mend data_root")}')


if __name__ == '__main__':
    main()
