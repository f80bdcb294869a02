"""Results of the trials: files and tables."""

import importlib.metadata
import json
import re
from pathlib import Path

from mmtransxnet.benchmark.families.trials import FINE, Result
from mmtransxnet.benchmark.families.zoo import LIBRARIES
from mmtransxnet.utils.atomic_write import write_safely


def read(path: Path) -> Result:
    """Read the results of a library so far."""
    return json.loads(path.read_text()) if path.exists() else {}


def write(path: Path, results: Result) -> None:
    """Replace the results of a library."""
    text = json.dumps(results, indent=1, sort_keys=True) + '\n'
    write_safely(path, text.encode())


def versions() -> list[str]:
    """Packages of the installed libraries with their versions."""
    distributions = importlib.metadata.packages_distributions()
    names = ('torch', 'torchvision', 'mmengine', 'mmcv', *LIBRARIES)
    packages = [distributions[name][0] for name in names]
    return [f'{name} {importlib.metadata.version(name)}' for name in packages]


def table(library: str, results: Result) -> str:
    """The results of a library as text and a markdown table."""
    families = results['families']
    unchanged = sum(result['step'] == FINE for result in families.values())
    with_transxnet = sum(
        result.get('transxnet') == FINE for result in families.values()
    )
    meta = results['made']
    head = (
        f'{len(families)} families of {library}: **{unchanged}** train a '
        f'step as they are, **{with_transxnet}** with TransXNet-T. '
        f'{meta["date"]}, {", ".join(meta["versions"])}.\n\n'
        '| family | config | pixels | as it is | prediction | TransXNet-T |\n'
        '|---|---|---|---|---|---|\n'
    )
    return head + ''.join(
        f'| {" | ".join([name, *cells(result)])} |\n'
        for name, result in sorted(families.items())
    )


def cells(result: Result) -> list[str]:
    """The row of a family."""
    fine = result['step'] == FINE
    return [
        result['config'],
        str(result['size']) if fine else '',
        result['step'],
        result.get('prediction') or ('none' if fine else ''),
        result.get('transxnet', ''),
    ]


_MARKED = re.compile(
    r'(<!-- families: (\w+) -->\n).*?(<!-- end -->)', re.DOTALL
)


def write_tables(page: Path, folder: Path) -> None:
    """Write the results into a page, between its markers."""

    def part(match: re.Match[str]) -> str:
        results = read(folder / f'{match[2]}.json')
        if not results:
            return match[0]  # table of another library
        return f'{match[1]}\n{table(match[2], results)}\n{match[3]}'

    page.write_text(_MARKED.sub(part, page.read_text()))
