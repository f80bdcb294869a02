"""The folder of the page's files."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder of this process for all files of gradio, removed at the end.

    Gradio reads its name when it is imported and when components are built.
    """
    with tempfile.TemporaryDirectory(prefix='mmtransxnet-web-') as name:
        folder = Path(name)
        changes = {
            'GRADIO_ANALYTICS_ENABLED': 'False',
            'GRADIO_TEMP_DIR': str(folder / 'files'),
            'GRADIO_EXAMPLES_CACHE': str(folder / 'cache'),
        }
        before = {key: os.environ.get(key) for key in changes}
        os.environ.update(changes)
        try:
            yield folder
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value
