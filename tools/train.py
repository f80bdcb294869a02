"""Train any model of the suite, or any other, from its config."""

from mmtransxnet.engine import closing_process_group, report_user_errors
from mmtransxnet.engine.runner.train import train, train_parser
from mmtransxnet.utils.allocator import keep_freed_memory


def main() -> None:
    """Train, and close the process group."""
    args = train_parser(__doc__).parse_args()
    with report_user_errors(), closing_process_group():
        keep_freed_memory()
        train(args)


if __name__ == '__main__':
    main()
