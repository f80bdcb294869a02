"""The command ``mmtransxnet``: the programs under ``tools/`` by name.

``mmtransxnet train CONFIG`` is ``python tools/train.py CONFIG``, with the
tools that the installation has. Every program there is a name: a new one
needs no entry.
"""

import ast
import difflib
import runpy
import sys
from pathlib import Path

from mmtransxnet.utils.paths import ROOT

_TOOLS = ROOT / 'tools'


def programs() -> dict[str, Path]:
    """Files of the programs by name, the main ones first."""
    found = [*sorted(_TOOLS.glob('*.py')), *sorted(_TOOLS.glob('*/*.py'))]
    return {
        path.stem.replace('_', '-'): path
        for path in found
        if not path.stem.startswith('_')
    }


def _purpose(path: Path) -> str:
    """The first line of a program's docstring, without running it."""
    text = ast.get_docstring(ast.parse(path.read_text('utf-8'))) or ''
    return text.partition('\n')[0].rstrip('.')


def _usage() -> str:
    """All programs by folder, with their purposes."""
    lines = ['usage: mmtransxnet PROGRAM [arguments]', '']
    lines += ['`mmtransxnet PROGRAM --help` explains a program.']
    group = None
    for name, path in programs().items():
        if path.parent != group:
            group = path.parent
            title = 'programs' if group == _TOOLS else group.name
            lines += ['', f'{title}:']
        lines.append(f'  {name:<20} {_purpose(path)}')
    return '\n'.join(lines)


def main() -> None:
    """Run the program that the first argument names."""
    name, *arguments = sys.argv[1:] or ['--help']
    if name in ('-h', '--help'):
        sys.stdout.write(_usage() + '\n')
        return
    known = programs()
    if name not in known:
        close = difflib.get_close_matches(name, known)
        hint = f'did you mean {", ".join(close)}? ' if close else ''
        sys.exit(
            f'error: mmtransxnet has no program {name!r}; {hint}'
            '`mmtransxnet --help` lists them'
        )
    path = known[name]
    # argparse names the program by it.
    sys.argv = [f'mmtransxnet {name}', *arguments]
    # Programs import what lies beside them.
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name='__main__')
